"""Commands with a time limit, and a time budget that is shared among them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bench.measure.timing import Clock
from core.errors import UserError, in_words

T = TypeVar("T")
_SECONDS = re.compile(r"(?:(\d+)m)?(?:(\d+)s?)?")
RESULT = "result: "  # prefix of the output line with a step's result
_GRACE = 3.0  # seconds between SIGTERM and SIGKILL
_KEPT = 32 * 1024  # bytes at the end of a log that are kept


def seconds_of(text: str) -> float:
    """Parses a duration such as ``8m30s``, ``9m``, ``510s`` or ``510`` and returns its seconds.

    Raises:
        UserError: not a duration, or 0.
    """
    found = _SECONDS.fullmatch(text.strip())
    seconds = 60 * int(found[1] or 0) + int(found[2] or 0) if found else 0
    if not seconds:
        raise UserError(f"budget is {text!r}: it must be a time above 0, such as 8m30s or 510")
    return float(seconds)


class Budget:
    """A time budget that starts when the object is made.

    Attributes:
        seconds: the whole budget.

    Args:
        seconds: the whole budget.
        clock: a monotonic clock, in seconds.
    """

    def __init__(self, seconds: float, *, clock: Clock = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._start = clock()
        self._longest: dict[str, float] = {}

    @property
    def used(self) -> float:
        """Returns the seconds since the start."""
        return self._clock() - self._start

    @property
    def left(self) -> float:
        """Returns the remaining seconds, at least 0."""
        return max(0.0, self.seconds - self.used)

    def share(self, weights: Sequence[float]) -> float:
        """Returns the first weight's share of the remaining time, in seconds.

        Args:
            weights: weights of the next step and of all steps after it, each above 0.
        """
        return self.left * weights[0] / sum(weights)

    def refusal(self, kind: str, expected: float = 0.0) -> str | None:
        """Returns why no further piece of this kind fits the budget; None if one fits.

        A piece fits if the longest piece of its kind so far took less than the remaining time.

        Args:
            kind: name of a kind of pieces that take about equally long.
            expected: seconds that the first piece of this kind is expected to take.
        """
        if self.left > self._longest.get(kind, expected):
            return None
        return f"no time left ({self.used:.0f} s of {self.seconds:.0f})"

    def attempt(self, kind: str, work: Callable[[], T], expected: float = 0.0) -> T | str:
        """Runs ``work``, a piece of ``kind``; returns its result, or a text if it did not run.

        The text is that of :meth:`refusal`, or of the exception that ``work`` raised.
        """
        if (reason := self.refusal(kind, expected)) is not None:
            return reason
        with self.piece(kind):
            try:
                return work()
            except Exception as error:  # native runtimes raise any type
                return in_words(error)

    @contextmanager
    def piece(self, kind: str) -> Iterator[None]:
        """Records the run time of the block as a piece of ``kind``, even if it fails."""
        start = self._clock()
        try:
            yield
        finally:
            took = self._clock() - start
            self._longest[kind] = max(took, self._longest.get(kind, 0.0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """The end of a command.

    Attributes:
        status: exit status, negative for a signal; None if it was stopped at its time limit.
        seconds: run time.
        limit: time limit in seconds.
        result: text of the last output line that begins with :data:`RESULT`; empty without one.
        last: last line of its output; empty without output.
    """

    status: int | None
    seconds: float
    limit: float
    result: str
    last: str

    @property
    def reason(self) -> str:
        """Returns why the command failed; empty if it did not."""
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
    """Runs ``command``, ends all processes that it started, and returns how it ended.

    Args:
        command: the program and its arguments.
        log: file for the end of its stdout and stderr, at most 32 KiB.
        limit: time limit in seconds.
        folder: working directory.
        environment: environment variables.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with log.open("wb") as file:
        # In its own session, so that its worker processes can be ended with it.
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
            process.terminate()  # lets it write its results first
            with suppress(subprocess.TimeoutExpired):
                process.wait(_GRACE)
        finally:
            with suppress(ProcessLookupError):  # all its processes have ended
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
        last=next(filter(None, reversed(lines)), "").removeprefix("error: "),  # of a UserError
    )
