"""Median and range of a quantity that was measured in several rounds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

FEWEST = 3  # least number of rounds for a meaningful range
Verdict = Literal["met", "missed", "undecided"]


@dataclass(frozen=True, slots=True)
class Spread:
    """The median, minimum and maximum of several rounds.

    With n independent rounds, the true median is outside of the range with probability
    2 ** (1 - n): the range of five rounds is a 94 % confidence interval.
    """

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, rounds: Sequence[float]) -> Spread:
        """Returns the spread of a figure, given its value in each round."""
        return cls(median(rounds), min(rounds), max(rounds))

    @classmethod
    def ratio(cls, over: Sequence[float], under: Sequence[float]) -> Spread:
        """Returns the spread of the ratio of two figures that were measured in the same rounds.

        Both have the same background load in a round, so ratios vary less than the figures. A
        ratio is infinite if ``under`` is 0.
        """
        pairs = zip(over, under, strict=True)
        return cls.of([a / b if b else math.inf for a, b in pairs])

    def at_least(self, target: float) -> Verdict:
        """Returns whether the figure is at least ``target``; undecided if that is in the range."""
        if self.low >= target:
            return "met"
        return "missed" if self.high < target else "undecided"

    def at_most(self, target: float) -> Verdict:
        """Returns whether the figure is at most ``target``; undecided if that is in the range."""
        if self.high <= target:
            return "met"
        return "missed" if self.low > target else "undecided"

    def __str__(self) -> str:
        return f"{self.median:.2f} ({self.low:.2f} to {self.high:.2f})"
