"""Rows of a study, and results that combine them with the paper's figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from bench.measure.ratio import Ratio
from bench.measure.timing import Latency, Plan, decisive
from bench.studies.variants import Variant
from core.machine import Machine

PAPER = "paper"


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """One variant in one runtime.

    Attributes:
        group, variant: names of the :class:`~bench.studies.variants.Variant`.
        digest: :func:`~bench.studies.variants.digest` of the variant.
        runtime: name of the runtime.
        batch: batch size.
        threads: CPU threads inside a call.
        macs: multiply-accumulates per image, of the exported graph.
        bytes: bytes moved per call, in float32.
        latency: all samples.
        plan: number of samples and rounds.
        machine: the machine, with the versions of the libraries.
        when: UTC date and time of the run, ISO 8601; rows of one run were interleaved.
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


class Results:
    """The rows of one run of a study, by variant, and its paper's figures.

    In its methods, a source is the name of a runtime, or :data:`PAPER`.

    Args:
        variants: all variants of the run.
        rows: a row for each variant in each runtime.
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
        """Returns the row of ``variant`` in ``runtime``; in the first runtime if None."""
        return self._rows[variant.group, variant.name, runtime or self.runtimes[0]]

    def find(self, group: str, name: str) -> Variant:
        """Returns the variant with this group and name."""
        return next(v for v in self.groups[group] if v.name == name)

    def first(self, variant: Variant) -> Variant:
        """Returns the baseline of ``variant``: the first variant of its group."""
        return self.groups[variant.group][0]

    def shown(self, variant: Variant, runtime: str) -> Latency:
        """Returns the times of ``variant`` that are shown: those by which a runtime is judged.

        They are CPU times if all variants have them in that runtime, else times by wall clock.
        """
        times = decisive(self.row(each, runtime).latency for each in self.variants)
        return times[self.variants.index(variant)]

    def latency(self, variant: Variant, source: str) -> Latency | None:
        """Returns the latency of ``variant`` from ``source``; None if the paper prints none.

        A printed figure becomes a latency of one sample, without an interval, in units of the time
        of the group's first variant.
        """
        if source != PAPER:
            return self.row(variant, source).latency
        if variant.paper is None:
            return None
        return Latency(turns=((variant.paper,),), warmup=0)

    def ratio(self, a: Variant, b: Variant, source: str) -> Ratio | None:
        """Returns the latency of ``a`` over that of ``b``; None if the paper prints none."""
        over, under = self.latency(a, source), self.latency(b, source)
        return Ratio.of(over, under) if over and under else None

    def macs_ratio(self, a: Variant, b: Variant) -> float:
        """Returns the MACs of ``a`` over those of ``b``."""
        return self.row(a).macs / self.row(b).macs

    def macs_spread(self) -> float:
        """Returns the largest relative difference of MACs from the group's first variant."""
        return max(abs(self.macs_ratio(v, self.first(v)) - 1) for v in self.variants)
