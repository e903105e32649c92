"""Seconds, shared out between steps and between the pieces of one step."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from bench.measure.timing import Clock
from core.errors import UserError

_SECONDS = re.compile(r"(?:(\d+)m)?(?:(\d+)s?)?")


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
    """So many seconds from now on.

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
        """Returns the first one's share of the seconds left; what it leaves goes to the others.

        Args:
            weights: of it and of all that comes after it, each above 0.
        """
        return self.left * weights[0] / sum(weights)

    def refusal(self, kind: str, expected: float = 0.0) -> str | None:
        """Returns in words why no piece of a kind may begin; None if it may.

        It may if the longest one of that kind until now would have fitted into what is left.

        Args:
            kind: what pieces that take about as long are called.
            expected: seconds of the first of them.
        """
        if self.left > self._longest.get(kind, expected):
            return None
        return f"no time left ({self.used:.0f} s of {self.seconds:.0f})"

    @contextmanager
    def piece(self, kind: str) -> Iterator[None]:
        """Notes how long a piece of a kind takes, whether it ends well or not."""
        start = self._clock()
        try:
            yield
        finally:
            took = self._clock() - start
            self._longest[kind] = max(took, self._longest.get(kind, 0.0))
