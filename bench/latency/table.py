"""Rows in words: the same cells for the terminal, the Markdown file and the HTML page."""

from __future__ import annotations

from bench.latency.pick import Pick
from bench.latency.rows import Row, Sweep
from bench.measure.timing import is_complete
from report.format import MISSING, ms, percent

# Standard deviation over mean above which a row is marked: its tail is the machine's, not its own.
NOISY = 0.25

COLUMNS = (
    "Network",
    "Precision",
    "Runtime",
    "Batch",
    "Threads",
    "p50 ms",
    "95 % interval",
    "p95 ms",
    "p99 ms",
    "Calls",
    "x faster",
    "GMACs/s",
    "Top-1",
    "File MB",
    "Notes",
)
NUMERIC = frozenset(COLUMNS[3:14])


def measured_cells(sweep: Sweep, row: Row, picks: dict[str, Pick]) -> dict[str, str]:
    """Returns the text of each of :data:`COLUMNS` for a row that was measured."""
    latency = row.latency
    assert latency is not None, "rows without a latency have other columns"
    low, high = latency.interval
    eager, times, rate = sweep.eager(row), sweep.times_torch(row), row.rate
    return dict(
        zip(
            COLUMNS,
            (
                row.network,
                row.precision,
                str(row.runtime),
                str(row.batch),
                str(row.threads),
                ms(latency.p50),
                f"{ms(low)} to {ms(high)}",
                ms(latency.p95),
                ms(latency.p99),
                f"{latency.count:,}",
                MISSING if isinstance(times, str) else "1.00" if row is eager else str(times),
                MISSING if rate is None else f"{rate / 1e9:.1f}",
                top1(row),
                MISSING if row.size is None else f"{row.size / 1e6:.1f}",
                "; ".join(_notes(sweep, row, picks)),
            ),
            strict=True,
        )
    )


def unmeasured(sweep: Sweep) -> list[tuple[str, str, str, str, str]]:
    """Returns (network, artifact, runtime, batches, reason) of what has no latency.

    Batch sizes that share a reason share a line.
    """
    lines: dict[tuple[str, str, str, str], list[int]] = {}
    for row in sweep.rows:
        if row.latency is None:
            what = (row.network, f"{row.format}-{row.precision}", row.runtime or "any")
            lines.setdefault((*what, row.reason or "no reason given"), []).append(row.batch)
    return [
        (network, artifact, runtime, ", ".join(map(str, batches)), reason)
        for (network, artifact, runtime, reason), batches in lines.items()
    ]


def top1(row: Row) -> str:
    """Returns the artifact's own measured accuracy, with the number of images."""
    if row.metrics is None:
        return MISSING
    return f"{percent(row.metrics.top1)} of {row.metrics.images:,}"


def threads(row: Row) -> str:
    """Returns the CPU threads inside a call of ``row``: ``2 threads``."""
    return f"{row.threads} thread{'s' if row.threads != 1 else ''}"


def _notes(sweep: Sweep, row: Row, picks: dict[str, Pick]) -> list[str]:
    notes = []
    pick = picks.get(row.network)
    if pick and pick.row is row:
        notes.append("served")
    if row.weights == "random" and len(sweep.networks()) > 1:
        notes.append("random weights")  # of one network the subtitle says it
    if row.unverified is not None:
        notes.append(f"unverified: {row.unverified}")
    if row.latency and row.latency.variation > NOISY:
        notes.append(f"noisy ({percent(row.latency.variation, decimals=0)})")
    if row.latency and not is_complete(row.latency, sweep.plan):
        notes.append(f"unfinished: {row.latency.count:,} of {sweep.plan.count:,} calls")
    if sweep.eager(row) and isinstance(times := sweep.times_torch(row), str):
        notes.append(times)
    first, ties = sweep.peers(row)[0], sweep.tied(row)
    if row is first and ties:
        notes.append("tie with " + ", ".join(f"{tie.runtime} {tie.precision}" for tie in ties))
    elif first in ties:
        notes.append("tied for fastest")
    return notes
