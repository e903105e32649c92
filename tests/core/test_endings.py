from __future__ import annotations

import errno
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from core import cli
from core.errors import UserError, storage_error

ROOT = Path(__file__).resolve().parents[2]


def ended(command: Callable[[], int | None]) -> object:
    """Returns the exit status of a command, or the line it ends with."""
    with pytest.raises(SystemExit) as stop:
        cli.run(command)
    return stop.value.code


def test_a_command_ends_with_its_own_status_or_with_the_line_of_a_mistake() -> None:
    def mistaken() -> int:
        raise UserError("size is 0")

    assert ended(lambda: None) == 0
    assert ended(lambda: 3) == 3
    assert ended(mistaken) == "error: size is 0"


STOPPED = """
import signal, sys
from core import cli

number = signal.Signals(int(sys.argv[1]))

def stopped():
    try:
        signal.raise_signal(number)
    finally:
        if number == signal.SIGTERM:
            signal.raise_signal(number)  # again, as make sends it
        print("cleared")

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
cli.run(stopped)
"""


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_command_clears_up_and_ends_with_128_and_the_signal(
    number: signal.Signals, status: int
) -> None:
    # In a process of its own: libraries that other tests loaded may handle signals, too.
    command = [sys.executable, "-c", STOPPED, str(int(number))]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == status
    assert ended.stdout == "cleared\n"
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert ended.stderr == f"stopped by {name}\n"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_that_an_import_turns_into_its_own_error_is_told(
    number: signal.Signals, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped() -> int:
        try:
            try:
                signal.raise_signal(number)
            except KeyboardInterrupt as error:  # as a compiled module does
                raise ImportError("initialization failed") from error
        except ImportError as error:
            raise UserError("ort-cpu: initialization failed; pip install onnxruntime") from error
        return 0

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert ended(stopped) == status
    finally:
        signal.signal(signal.SIGINT, before)
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert capsys.readouterr().err == f"stopped by {name}\n"


def test_what_goes_wrong_while_a_command_clears_up_is_told() -> None:
    def stopped() -> int:
        try:
            raise KeyboardInterrupt
        finally:
            raise UserError("the list cannot be written")

    assert ended(stopped) == "error: the list cannot be written"


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_that_a_callback_drops_is_sent_again(
    number: signal.Signals, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    hook = sys.unraisablehook

    def stopped() -> int:
        what: set[int] = set()
        kept = weakref.ref(what, lambda _: signal.raise_signal(number))
        del what
        for _ in range(1000):  # a long sleep goes on if another thread gets the signal
            time.sleep(0.01)
        return int(kept() is None)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert ended(stopped) == status
    finally:
        signal.signal(signal.SIGINT, before)
    assert sys.unraisablehook is hook
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert capsys.readouterr().err == f"stopped by {name}\n"


def test_a_later_signal_stops_what_the_first_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "_TOGETHER_S", 0.0)

    def deaf() -> int:
        for _ in range(2):
            with suppress(cli.Terminated):
                signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        return 0

    assert ended(deaf) == 143


def test_a_stopped_command_may_say_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def stopped() -> int:
        raise cli.Terminated("--resume goes on")

    assert ended(stopped) == 143
    assert capsys.readouterr().err == "stopped: --resume goes on\n"


def test_what_a_disk_refuses_is_one_line() -> None:
    def full() -> int:
        raise OSError(errno.ENOSPC, "No space left on device", "a/model.onnx")

    def read_only() -> int:
        try:
            raise OSError(errno.EROFS, "Read-only file system")
        except OSError:
            raise RuntimeError("unexpected pos 704 vs 598")  # noqa: B904, as torch does

    def absent() -> int:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "a")

    def in_bytes() -> int:
        raise OSError(errno.EROFS, "Read-only file system", b"log")

    assert ended(in_bytes) == "error: Read-only file system: log"
    assert ended(full) == "error: No space left on device: a/model.onnx"
    assert ended(read_only) == "error: Read-only file system"
    with pytest.raises(FileNotFoundError):  # a fault of ours
        cli.run(absent)
    assert storage_error(RuntimeError("something else")) is None
