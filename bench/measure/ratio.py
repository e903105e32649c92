"""The ratio of two latencies, with an interval."""

from __future__ import annotations

from dataclasses import dataclass

from bench.measure.timing import Latency, decisive


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of latencies, with an interval.

    The interval is conservative: from lower end over upper end to upper end over lower end.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, a: Latency, b: Latency) -> Ratio:
        """Returns the ratio of the medians, a over b: of CPU time where :func:`decisive` is."""
        a, b = decisive((a, b))
        (a_low, a_high), (b_low, b_high) = a.interval, b.interval
        return cls(a.p50 / b.p50, a_low / b_high, a_high / b_low)
