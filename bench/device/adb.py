"""Controls a phone through ``adb``: finds it, runs commands on it, copies files to and from it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.errors import UserError, closest
from report.format import one_line

PROGRAM = "adb"
LIST = (PROGRAM, "devices", "-l")
FOLDER = "/data/local/tmp/pocketnets"  # in /data/local/tmp the shell may write and execute files
_PATIENCE = 120.0  # seconds for a command that measures nothing
_STATES = {
    "unauthorized": "it has not allowed this computer yet: unlock it and accept its question",
    "authorizing": "it has not allowed this computer yet: unlock it and accept its question",
    "offline": "it is offline: unplug it and plug it in again",
    "no permissions": "this user may not open it: see the udev rules on "
    "https://developer.android.com/tools/device",
}


class PhoneFailed(UserError):
    """A command on the phone, or a copy to it, failed; the phone is still connected."""


class PhoneLost(UserError):
    """The phone no longer responds."""


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of ``adb devices -l``; the ``state`` of a usable phone is ``device``."""

    serial: str
    state: str
    model: str

    def __str__(self) -> str:
        words = self.model if self.state == "device" else self.state
        return f"{self.serial} ({words})" if words else self.serial


@dataclass(frozen=True, slots=True)
class Adb:
    """One phone, by its serial number."""

    serial: str

    def words(self, *arguments: str) -> list[str]:
        """Returns the adb command line with ``arguments`` for this phone."""
        return [PROGRAM, "-s", self.serial, *arguments]

    def shell(self, command: str, *, patience: float = _PATIENCE) -> str:
        """Runs ``command`` on the phone and returns its stdout and stderr.

        Args:
            command: a command line for the phone's shell.
            patience: time limit in seconds.

        Raises:
            PhoneFailed: its exit status is not 0, or it does not end in time.
            PhoneLost: the phone no longer responds.
        """
        return self._run("shell", command, patience=patience)

    def push(self, local: Path, remote: str) -> None:
        """Copies a file to the phone.

        Raises:
            PhoneFailed: it could not be written, such as on a full phone.
            PhoneLost: the phone no longer responds.
        """
        try:
            self._run("push", str(local), remote)
        except PhoneFailed as error:
            if "No space left on device" not in str(error):
                raise
            size = local.stat().st_size / 1e6
            raise PhoneFailed(
                f"the phone is full: {local.name} ({size:.1f} MB) does not fit into {FOLDER}; "
                "free some of its storage"
            ) from None

    def pull(self, remote: str, local: Path) -> None:
        """Copies a file from the phone.

        Raises:
            PhoneFailed: it could not be read.
            PhoneLost: the phone no longer responds.
        """
        self._run("pull", remote, str(local))

    def _run(self, *arguments: str, patience: float = _PATIENCE) -> str:
        try:
            ran = _adb(self.words(*arguments), patience)
        except subprocess.TimeoutExpired:
            self._check_there()
            raise PhoneFailed(f"it did not end within {patience:.0f} s") from None
        if ran.returncode:
            self._check_there()
            raise PhoneFailed(f"it ended with exit status {ran.returncode} and {_said(ran.stdout)}")
        return ran.stdout

    def _check_there(self) -> None:
        """Raises PhoneLost unless the phone responds."""
        try:
            state = one_line(_adb(self.words("get-state"), _PATIENCE).stdout) or "silent"
        except subprocess.TimeoutExpired:
            state = "hanging"
        if state != "device":
            raise PhoneLost(f"phone {self.serial} no longer answers ({state}): check its cable")


class DryAdb(Adb):
    """Prints each command line instead of running it, and returns empty outputs."""

    def _run(self, *arguments: str, patience: float = _PATIENCE) -> str:
        print(shlex.join(self.words(*arguments)))
        return ""


def find_phone(serial: str | None = None) -> Adb:
    """Returns the phone with this serial number, or the only connected one.

    Args:
        serial: serial number as in ``adb devices``; if None, that in ``ANDROID_SERIAL``, if set.

    Raises:
        UserError: no adb, no such phone, several phones without ``serial``, or an unusable one.
    """
    if shutil.which(PROGRAM) is None:
        raise UserError(
            "adb is not on PATH: it comes with the platform tools of Android "
            "(https://developer.android.com/tools/releases/platform-tools)"
        )
    phones = list_phones()
    if not phones:
        raise UserError(
            "no phone is connected: plug one in with USB debugging on, or connect to it with: "
            "adb connect ADDRESS"
        )
    serial = serial or os.environ.get("ANDROID_SERIAL") or None
    named = ", ".join(map(str, phones))
    if serial is None and len(phones) > 1:
        raise UserError(f"{len(phones)} phones are connected: {named}; name one with: --adb SERIAL")
    phone = phones[0] if serial is None else next((p for p in phones if p.serial == serial), None)
    if phone is None:
        near = closest(str(serial), [phone.serial for phone in phones])
        raise UserError(f"no phone {serial!r} is connected: {near}")
    if phone.state != "device":
        why = _STATES.get(phone.state, f"it is in state {phone.state!r} and must be in 'device'")
        raise UserError(f"phone {phone.serial} cannot be used: {why}")
    return Adb(phone.serial)


def list_phones() -> list[Listed]:
    """Returns all phones in ``adb devices -l``, usable or not.

    Raises:
        UserError: adb fails, does not end in time, or prints something else.
    """
    try:
        ran = _adb(LIST, _PATIENCE)
    except subprocess.TimeoutExpired:
        raise UserError(
            f"adb devices did not end within {_PATIENCE:g} s: restart adb with: adb kill-server"
        ) from None
    _, head, body = ran.stdout.partition("List of devices attached")
    if ran.returncode:
        raise UserError(
            f"adb devices failed with exit status {ran.returncode} and {_said(ran.stdout)}"
        )
    if not head:
        raise UserError(
            f"adb devices printed no list of phones and {_said(ran.stdout)}; is "
            f"{shutil.which(PROGRAM)} the adb of Android's platform tools?"
        )
    return [_listed(line) for line in _lines(body)]


def _listed(line: str) -> Listed:
    serial, *words = line.split(maxsplit=1)
    rest = words[0] if words else ""
    # A state is a single word, except "no permissions (why); see [address]".
    state = "no permissions" if "no permissions" in rest else (rest.split() or ["unknown"])[0]
    model = re.search(r"\bmodel:(\S+)", rest)
    return Listed(serial, state, model[1].replace("_", " ") if model else "")


def _lines(text: str) -> list[str]:
    """Returns the lines of ``text`` that are not empty, without control characters."""
    return list(filter(None, map(one_line, text.splitlines())))


def _said(text: str) -> str:
    """Returns the first line on an error, or else the last line, as the end of a message."""
    lines = _lines(text)
    if not lines:
        return "said nothing"
    return "said: " + next((line for line in lines if "error" in line.lower()), lines[-1])


def _adb(words: Sequence[str], patience: float) -> subprocess.CompletedProcess[str]:
    """Runs a command line of adb; stdout of the result includes stderr."""
    return subprocess.run(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=patience,
        check=False,
    )
