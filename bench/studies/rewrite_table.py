"""What graph rewrites were measured to gain: the rows and their table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from artifact.records import Rewrite
from bench.measure.ratio import Ratio
from bench.measure.timing import Latency, overlap
from core.machine import Machine
from core.record_file import read_rows
from report.format import ms
from report.section import Section, Table

FILE = "study-rewrites.jsonl"
REMEDY = "measure again with --fresh"


@dataclass(frozen=True, kw_only=True)
class RewriteRow:
    """One rewrite of one network in one runtime, batch 1, one thread.

    Attributes:
        network: ``<model>-<data>``.
        artifact: ``<format>-<precision>`` of the artifact that has it.
        rewrite: its name.
        count: how many places of the graph it changed.
        runtime: name of the runtime.
        error: largest difference that it makes to a logit, over the largest logit.
        before, after: latency of the same graph without it and with it.
        machine: the machine, with the versions of the libraries.
        when: UTC date and time of the run, ISO 8601.
        sha256: digest of the artifact's model file.
    """

    network: str
    artifact: str
    rewrite: Rewrite
    count: int
    runtime: str
    error: float
    before: Latency
    after: Latency
    machine: Machine
    when: str
    sha256: str


def rewrites_section(rows: Sequence[RewriteRow]) -> Section:
    """Returns the table of what each rewrite gains."""
    header = ("Rewrite", "Network", "Artifact", "Places", "Runtime", "without ms", "with ms")
    lines = []
    for row in sorted(rows, key=lambda row: (row.rewrite, row.network, row.artifact)):
        before, after = (_shown(latency) for latency in (row.before, row.after))
        gain = Ratio.of(row.before, row.after)
        tie = ", a tie" if overlap(row.before, row.after) else ""
        lines.append(
            (
                row.rewrite,
                row.network,
                row.artifact,
                str(row.count),
                row.runtime,
                ms(before.p50),
                ms(after.p50),
                f"{gain.value:.2f} ({gain.low:.2f} to {gain.high:.2f}){tie}",
                f"{row.error:.2g}",
            )
        )
    table = Table(
        header=(*header, "times as fast", "logits differ by"),
        rows=tuple(lines),
        numeric=frozenset({"Places", *header[-2:], "times as fast", "logits differ by"}),
    )
    dates = sorted({row.when[:10] for row in rows})
    return Section(
        title="What graph rewrites gain",
        sentences=(
            "The same graph without and with each rewrite, by turns: one image, one thread, p50 "
            "of CPU time where it was kept. Ratios have conservative 95 % intervals.",
        ),
        tables=(table,),
        notes=(f"Rewrites were measured on {', '.join(dates)}.",) if dates else (),
    )


def known_rewrites(out: Path, networks: Sequence[str], machine: Machine) -> Section | None:
    """Returns the section of the rows of ``networks`` that the study left in ``out``, or None."""
    rows = [
        row
        for row in read_rows(out / FILE, RewriteRow, remedy=REMEDY)
        if row.network in networks and row.machine.key == machine.key
    ]
    return rewrites_section(rows) if rows else None


def _shown(latency: Latency) -> Latency:
    return latency.cpu_time or latency
