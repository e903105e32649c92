"""Rows of a study, looked up by variant, beside the paper's figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.measure.timing import Latency, Plan
from bench.studies.variants import Variant
from core.machine import Machine

PAPER = "paper"


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """One variant in one runtime.

    Attributes:
        group, variant: names of the :class:`~bench.studies.variants.Variant`.
        digest: of its layers.
        runtime: what executed it.
        batch: images per call.
        threads: CPU threads inside one call.
        macs: multiply-accumulates per image, of the exported graph.
        bytes: moved per call, float32.
        latency: every sample.
        plan: how much was asked for.
        machine: where it was measured, with the versions of the libraries.
        when: UTC date and time of the run, ISO 8601; rows of one run took turns.
    """

    group: str
    variant: str
    digest: str
    runtime: str
    batch: int
    threads: int
    macs: int
    bytes: int
    latency: Latency
    plan: Plan
    machine: Machine
    when: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """A ratio of latencies, with an interval that holds the true value.

    The interval is cautious: from the lower end over the upper one to the upper over the lower.
    """

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, a: Latency, b: Latency) -> Ratio:
        """Returns a over b, of medians."""
        (a_low, a_high), (b_low, b_high) = a.interval, b.interval
        return cls(a.p50 / b.p50, a_low / b_high, a_high / b_low)


class Results:
    """The rows of one run of a study by variant, beside its paper's figures.

    A source is the name of a runtime, or :data:`PAPER`.

    Args:
        variants: all variants of the run.
        rows: one for each of them in each runtime.
    """

    def __init__(self, variants: Sequence[Variant], rows: Sequence[StudyRow]) -> None:
        assert rows, "a run measures something"
        self.variants = list(variants)
        self.rows = list(rows)
        self.runtimes = list(dict.fromkeys(row.runtime for row in rows))
        self.groups: dict[str, list[Variant]] = {}
        for variant in variants:
            self.groups.setdefault(variant.group, []).append(variant)
        self._rows = {(row.group, row.variant, row.runtime): row for row in rows}

    def row(self, variant: Variant, runtime: str | None = None) -> StudyRow:
        """Returns the row of ``variant`` in ``runtime``, or in any."""
        return self._rows[variant.group, variant.name, runtime or self.runtimes[0]]

    def find(self, group: str, name: str) -> Variant:
        """Returns the variant of these names."""
        return next(v for v in self.groups[group] if v.name == name)

    def first(self, variant: Variant) -> Variant:
        """Returns what ``variant`` is measured by: the first of its group."""
        return self.groups[variant.group][0]

    def latency(self, variant: Variant, source: str) -> Latency | None:
        """Returns what ``source`` says of ``variant``; None where the paper says nothing.

        A printed figure is a latency of one sample: it has no interval, and its unit is the time of
        the group's first variant.
        """
        if source != PAPER:
            return self.row(variant, source).latency
        if variant.paper is None:
            return None
        return Latency(turns=((variant.paper,),), warmup=0)

    def ratio(self, a: Variant, b: Variant, source: str) -> Ratio | None:
        """Returns how many times as long as ``b`` variant ``a`` takes; None where not printed."""
        over, under = self.latency(a, source), self.latency(b, source)
        return Ratio.of(over, under) if over and under else None

    def macs_ratio(self, a: Variant, b: Variant) -> float:
        """Returns how many times as many MACs as ``b`` variant ``a`` has."""
        return self.row(a).macs / self.row(b).macs

    def macs_spread(self) -> float:
        """Returns by how much MACs differ from those of their group's first variant, at most."""
        return max(abs(self.macs_ratio(v, self.first(v)) - 1) for v in self.variants)
