"""The median and the range of a figure that was measured in several rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

FEWEST = 3  # rounds: fewer say nothing about how they differ
Verdict = Literal["met", "missed", "undecided"]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median, the least and the greatest of several rounds.

    From n rounds whose errors are independent, the true median lies outside of least and greatest
    once in 2 ** (n - 1): with five rounds, they are an interval of 94 %.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Spread:
        """Returns the spread of one figure for each round."""
        return cls(median(rounds), min(rounds), max(rounds))

    @classmethod
    def ratio(cls, over: Sequence[float], under: Sequence[float]) -> Spread:
        """Returns the spread of the ratio of two figures of the same rounds.

        Both saw the same background load in a round, so ratios lie closer together.
        Over nothing at all it is infinite.
        """
        pairs = zip(over, under, strict=True)
        return cls.of([a / b if b else math.inf for a, b in pairs])

    def at_least(self, target: float) -> Verdict:
        """Returns whether the figure is ``target`` or more: undecided where the rounds differ."""
        if self.low >= target:
            return "met"
        return "missed" if self.high < target else "undecided"

    def at_most(self, target: float) -> Verdict:
        """Returns whether the figure is ``target`` or less: undecided where the rounds differ."""
        if self.high <= target:
            return "met"
        return "missed" if self.low > target else "undecided"

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"
