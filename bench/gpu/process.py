"""A command with a time limit that holds for all it starts, and what it said."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

RESULT = "result: "  # begins the line that says what a step found
_GRACE = 3.0  # seconds from the request to end to the end itself
_KEPT = 32 * 1024  # bytes of a log, its end


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """How a command ended.

    Attributes:
        status: its exit status, negative for a signal; None where it was stopped at its limit.
        seconds: how long it ran.
        limit: how long it might have run.
        result: what it said after :data:`RESULT` last; empty if it never did.
        last: the last line that it wrote; empty if there is none.
    """

    status: int | None
    seconds: float
    limit: float
    result: str
    last: str

    @property
    def reason(self) -> str:
        """Returns in words why it did not end well; empty if it did."""
        if self.status == 0:
            return ""
        said = f"; last line: {self.last}" if self.last else ""
        if self.status is None:
            return f"stopped after {self.seconds:.0f} s, its share of the time{said}"
        if self.status < 0:
            return f"killed by {signal.Signals(-self.status).name}{said}"
        return self.last or f"exit status {self.status}, without a word"


def run_limited(
    command: Sequence[str],
    *,
    log: Path,
    limit: float,
    folder: Path,
    environment: Mapping[str, str],
) -> Ended:
    """Returns how ``command`` ended, of which nothing runs any more then.

    Args:
        command: the program and its arguments.
        log: gets the end of what it writes, to stdout and stderr.
        limit: seconds after which it is stopped.
        folder: what it runs in.
        environment: its environment variables.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with log.open("wb") as file:
        # A session of its own: its worker processes end with it.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env=dict(environment),
            start_new_session=True,
        )
        status: int | None = None
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            process.terminate()  # it may have something to write down
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
        finally:
            with suppress(ProcessLookupError):  # all of it has ended
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    content = log.read_bytes()
    log.write_bytes(content[-_KEPT:])
    lines = [line.strip() for line in content.decode(errors="replace").splitlines()]
    results = [line.removeprefix(RESULT) for line in lines if line.startswith(RESULT)]
    return Ended(
        status=status,
        seconds=time.monotonic() - start,
        limit=limit,
        result=results[-1] if results else "",
        last=next(filter(None, reversed(lines)), "").removeprefix("error: "),  # a user's mistake
    )
