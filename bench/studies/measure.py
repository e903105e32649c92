"""Repeats an experiment of a paper on this machine, with interleaved variants."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.experiment import progress_bars, this_machine
from bench.measure.timing import Latency, Plan, measure
from bench.studies.record import Results, StudyRow
from bench.studies.variants import (
    BATCH,
    Platform,
    TimedVariant,
    Variant,
    digest,
    platforms,
    prepare,
    runtimes,
)
from bench.studies.verdict import Claim
from core.conditions import now
from core.cores import usable_cores
from core.errors import UserError
from core.record_file import read_rows, write_rows

# A study has up to 150 candidates, with calls of 0.5 ms to 200 ms.
COUNT, SECONDS, LIMIT, ROUNDS, EXTRA = 48, 0.5, 4.0, 24, 24
REMEDY = "measure again with --fresh"


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """An experiment of a paper.

    Attributes:
        title: heading of the section.
        question: the question, with its source.
        paper: platform to the device on which the paper measured.
        variants: returns the variants to measure on a platform.
        claims: the paper's claims.
        tolerance: largest relative difference of MACs from a group's first variant; None if they
            are meant to differ.
        notes: how the variants were chosen.
        chart: returns the chart of the results; None for times relative to each group's first
            variant.
    """

    title: str
    question: str
    paper: dict[Platform, str]
    variants: Callable[[Platform], list[Variant]]
    claims: tuple[Claim, ...]
    tolerance: float | None = None
    notes: tuple[str, ...] = ()
    chart: Callable[[Results], Any] | None = None


def find_study(name: str) -> Study:
    """Returns the study of ``bench/studies/<name>.py``."""
    study: Study = importlib.import_module(f"bench.studies.{name}").STUDY
    return study


def run_study(
    name: str,
    out: Path,
    *,
    batch: int | None = None,
    threads: int = 1,
    seconds: float = SECONDS,
    fresh: bool = False,
    on: Sequence[Platform] | None = None,
) -> dict[Platform, Results]:
    """Measures a study on each platform of this machine, or reuses an earlier run.

    A run in ``out/study-<name>.jsonl`` is reused if variants, machine, versions, batch size,
    threads and plan are the same. It is reused as a whole or not at all, as only rows of the same
    run were interleaved.

    Args:
        name: name of the study.
        out: folder of the file with the rows.
        batch: batch size; None for 1 on a CPU and 8 on a GPU.
        threads: CPU threads inside a call.
        seconds: least total time of a candidate's samples.
        fresh: measure again and discard all rows of the file.
        on: platforms to measure on; None for all of this machine.

    Raises:
        UserError: batch size or threads out of range, or the file cannot be understood.
    """
    if (batch is not None and batch < 1) or not 1 <= threads <= usable_cores():
        raise UserError(
            f"batch is {batch}, threads {threads}: batch must be at least 1, threads 1 to "
            f"{usable_cores()}, the usable cores of this machine"
        )
    study, file = find_study(name), out / f"study-{name}.jsonl"
    plan = Plan(count=COUNT, seconds=seconds, limit=max(LIMIT, seconds), rounds=ROUNDS, extra=EXTRA)
    kept = [] if fresh else read_rows(file, StudyRow, remedy=REMEDY)
    found = {}
    for platform in platforms() if on is None else on:
        run = StudyRun(study, platform, batch or BATCH[platform], threads, plan)
        rows = run.known(kept)
        if rows is None:
            rows = run.measure()
            replaced = {(row.runtime, row.batch, row.threads) for row in rows}
            kept = [r for r in kept if (r.runtime, r.batch, r.threads) not in replaced] + rows
            write_rows(file, kept)
        found[platform] = Results(run.variants, rows)
    return found


class StudyRun:
    """A study on one platform, with its settings."""

    def __init__(
        self, study: Study, platform: Platform, batch: int, threads: int, plan: Plan
    ) -> None:
        self.study, self.platform = study, platform
        self.batch, self.threads, self.plan = batch, threads, plan
        self.variants = study.variants(platform)
        self.runtimes = runtimes(platform)
        self.machine = this_machine()

    def known(self, kept: list[StudyRow]) -> list[StudyRow] | None:
        """Returns the rows of ``kept`` with these settings; None unless they are complete."""
        same = [
            row
            for row in kept
            if (row.machine.key, row.batch, row.threads)
            == (self.machine.key, self.batch, self.threads)
            # Rows of before there were extra rounds are as good.
            and replace(row.plan, extra=self.plan.extra) == self.plan
        ]
        rows = {(row.group, row.variant, row.digest, row.runtime): row for row in same}
        wanted = [
            (variant.group, variant.name, digest(variant), runtime)
            for variant in self.variants
            for runtime in self.runtimes
        ]
        return [rows[key] for key in wanted] if rows.keys() >= set(wanted) else None

    def measure(self) -> list[StudyRow]:
        """Measures every variant in every runtime, interleaved, and returns the rows."""
        when = now()
        candidates: list[TimedVariant] = []
        with progress_bars() as bar:
            exported = bar("Exporting", len(self.variants))
            for variant in self.variants:
                candidates.append(
                    prepare(variant, self.runtimes, batch=self.batch, threads=self.threads)
                )
                exported()
            calls = {
                (index, runtime): call
                for index, candidate in enumerate(candidates)
                for runtime, call in candidate.calls.items()
            }
            tick = bar("Measuring", len(calls) * (self.plan.rounds + 1))

            def rows(latencies: Mapping[tuple[int, str], Latency]) -> list[StudyRow]:
                return [
                    self._row(candidates[index], runtime, latency, when)
                    for (index, runtime), latency in latencies.items()
                ]

            latencies = measure(
                calls,
                self.plan,
                one_thread=calls if self.threads == 1 and self.platform == "CPU" else (),
                tick=tick,
                undecided=lambda latencies: calls if self._is_undecided(rows(latencies)) else (),
            )
        found = rows(latencies)
        spread = Results(self.variants, found).macs_spread()
        assert self.study.tolerance is None or spread <= self.study.tolerance, (
            f"MACs differ by {spread:.1%}"
        )
        return found

    def _row(self, candidate: TimedVariant, runtime: str, latency: Latency, when: str) -> StudyRow:
        return StudyRow(
            group=candidate.variant.group,
            variant=candidate.variant.name,
            digest=digest(candidate.variant),
            runtime=runtime,
            batch=self.batch,
            threads=self.threads,
            macs=candidate.macs,
            bytes=candidate.bytes,
            latency=latency,
            plan=self.plan,
            machine=self.machine,
            when=when,
        )

    def _is_undecided(self, rows: list[StudyRow]) -> bool:
        """Returns whether a claim of the paper is a tie in a runtime."""
        results = Results(self.variants, rows)
        verdicts = (
            claim.judge(results, runtime)
            for claim in self.study.claims
            for runtime in self.runtimes
        )
        return any(verdict is not None and verdict.word == "a tie" for verdict in verdicts)
