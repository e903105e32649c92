"""Commands with a time limit, and a budget of seconds shared out between them."""

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
RESULT = "result: "  # begins the line that says what a step found
_GRACE = 3.0  # seconds from the request to end to the end itself
_KEPT = 32 * 1024  # bytes of a log, its end


def seconds_of(text: str) -> float:
    """Returns the seconds that ``text`` names: ``8m30s``, ``9m``, ``510s`` or ``510``.

    Raises:
        UserError: it names none, or 0.
    """
    found = _SECONDS.fullmatch(text.strip())
    seconds = 60 * int(found[1] or 0) + int(found[2] or 0) if found else 0
    if not seconds:
        raise UserError(f"budget is {text!r}: it must be a time above 0, such as 8m30s or 510")
    return float(seconds)


class Budget:
    """A number of seconds, counted from now.

    Attributes:
        seconds: all of them.

    Args:
        seconds: all of them.
        clock: seconds, monotonic.
    """

    def __init__(self, seconds: float, *, clock: Clock = time.monotonic) -> None:
        self.seconds = seconds
        self._clock = clock
        self._start = clock()
        self._longest: dict[str, float] = {}

    @property
    def used(self) -> float:
        """Returns the seconds that have passed."""
        return self._clock() - self._start

    @property
    def left(self) -> float:
        """Returns the seconds that are left, 0 if there are none."""
        return max(0.0, self.seconds - self.used)

    def share(self, weights: Sequence[float]) -> float:
        """Returns the seconds of the first weight, of those left; the others share the rest.

        Args:
            weights: of it and of all that comes after it, each above 0.
        """
        return self.left * weights[0] / sum(weights)

    def refusal(self, kind: str, expected: float = 0.0) -> str | None:
        """Returns why no further piece of this kind fits the budget, or None.

        It may if the longest one of that kind until now would have fitted into what is left.

        Args:
            kind: what pieces that take about as long are called.
            expected: seconds of the first of them.
        """
        if self.left > self._longest.get(kind, expected):
            return None
        return f"no time left ({self.used:.0f} s of {self.seconds:.0f})"

    def attempt(self, kind: str, work: Callable[[], T], expected: float = 0.0) -> T | str:
        """Returns what ``work``, a piece of a kind, returns; in words, why not.

        It is not begun where no piece of its kind may (:meth:`refusal`). What it raises ends no
        other piece.
        """
        if (reason := self.refusal(kind, expected)) is not None:
            return reason
        with self.piece(kind):
            try:
                return work()
            except Exception as error:  # native runtimes raise what they like
                return in_words(error)

    @contextmanager
    def piece(self, kind: str) -> Iterator[None]:
        """Records how long a piece of a kind takes, even if it fails."""
        start = self._clock()
        try:
            yield
        finally:
            took = self._clock() - start
            self._longest[kind] = max(took, self._longest.get(kind, 0.0))


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
        """Returns why it failed; empty if it did not."""
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
    """Returns how ``command`` ended; by then nothing that it started still runs.

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
