"""Servers of one artifact, each a process tree on a port of this machine, and how they end."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from bench.load.http_client import Address, Connection, NoAnswer
from bench.load.loops import run_loop
from bench.load.run import make_requests
from bench.load.turns import Form
from bench.studies.plain import PORT, RUNTIME, VARIABLE
from core.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
_HOST, _PATH = "127.0.0.1", "/predict"
_START_S, _STOP_S = 60, 20


class NotStarted(UserError):
    """A server that does not answer; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """A server to compare.

    Attributes:
        name: in words.
        forms: how images are sent to it.
        package: without which it cannot run.
        extra: what installs that; None where the project needs it anyway.
        command: arguments of Python, for an artifact's folder and a port.
    """

    name: str
    forms: tuple[Form, ...]
    package: str
    extra: str | None
    command: Callable[[Path, int], list[str]]

    @property
    def missing(self) -> str | None:
        """Returns why it cannot run here, or None."""
        if importlib.util.find_spec(self.package) is not None:
            return None
        return f"{self.package} is not installed; pip install '.[{self.extra}]'"


def _ours(artifact: Path, port: int) -> list[str]:
    options = ["--artifact", str(artifact), "--runtime", RUNTIME, "--port", str(port)]
    return ["-m", "serving", *options, "--allow-unverified"]


def _bentoml(artifact: Path, port: int) -> list[str]:
    options = ["--host", _HOST, "--port", str(port), "--working-dir", str(ROOT)]
    return ["-m", "bentoml", "serve", "bench.studies.plain_bentoml:Plain", *options]


def _litserve(artifact: Path, port: int) -> list[str]:
    return ["-m", "bench.studies.plain_litserve"]


OURS = "ours"
CONTENDERS = (
    Contender(name=OURS, forms=("multipart", "raw"), package="bentoml", extra=None, command=_ours),
    Contender(
        name="BentoML", forms=("multipart",), package="bentoml", extra=None, command=_bentoml
    ),
    Contender(
        name="LitServe",
        forms=("multipart",),
        package="litserve",
        extra="servers",
        command=_litserve,
    ),
)


@contextmanager
def started(contender: Contender, artifact: Path, image: bytes) -> Iterator[Address]:
    """Yields the address of ``contender`` once it answers 200; it is ended with the block.

    Args:
        contender: what to start.
        artifact: its folder.
        image: an encoded one, to ask it with.

    Raises:
        NotStarted: it ends, or never answers so.
    """
    address = Address(_HOST, _free_port(), _PATH)
    ours = ("POCKETNETS_", "BENTOML_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    environment |= {VARIABLE: str(artifact.absolute()), PORT: str(address.port)}
    environment |= {"BENTOML_DO_NOT_TRACK": "True"}
    form = contender.forms[0]
    (request,) = make_requests(address, {"": [image]}, [form])["", form]
    with tempfile.TemporaryFile() as log:
        # A session of its own: its workers end with it, even those that it forgets.
        process = subprocess.Popen(
            [sys.executable, *contender.command(artifact.absolute(), address.port)],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            if (reason := _wait(process, address, request)) is not None:
                log.seek(0)
                last = log.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise NotStarted(f"{reason}; the last line of its log: {last[:200]!a}")
            yield address
        finally:
            _end(process)


def _wait(process: subprocess.Popen[bytes], address: Address, request: bytes) -> str | None:
    """Returns None once ``request`` is answered 200, or why it never is."""

    async def main() -> str:
        connection = Connection(address)
        try:
            return str((await connection.send(request)).status)
        except NoAnswer as error:
            return str(error)
        finally:
            connection.close()

    said, deadline = "refused", time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return f"it ended with status {process.returncode}"
        if (said := run_loop(main())) == "200":
            return None
        if said.startswith("4"):  # it is up, and will not take the image later either
            return f"it answers {said}"
        time.sleep(0.2)
    return f"no answer 200 within {_START_S} s, but {said}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    with suppress(ProcessLookupError):  # nothing is left of it
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])
