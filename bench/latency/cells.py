"""The cells of a sweep's table: a row for each that was measured, and a line for the others."""

from __future__ import annotations

from collections.abc import Sequence

from bench.latency.pick import Pick
from bench.latency.record import Row, Sweep, top1
from bench.measure.timing import is_complete
from report.format import MISSING, ms, percent
from report.section import Table

Missing = tuple[str, str, str, str, str]  # columns of _UNMEASURED
_UNMEASURED = ("Network", "Artifact", "Runtime", "Batch", "Why not")
# Standard deviation over mean above which a row is marked as noisy: its tail is due to the machine.
NOISY = 0.25
_WAITED = 1.1  # wall over CPU time above which a row's note gives the latter
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
    """Returns the text of each of :data:`COLUMNS` for a measured row."""
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


def unmeasured(sweep: Sweep) -> list[Missing]:
    """Returns (network, artifact, runtime, batches, reason) of the rows without a latency.

    Batch sizes with the same reason are merged into one line.
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


def missing_table(missing: Sequence[Missing]) -> Table:
    """Returns the table of what :func:`unmeasured` returns."""
    return Table(header=_UNMEASURED, rows=tuple(missing), numeric=NUMERIC)


def _notes(sweep: Sweep, row: Row, picks: dict[str, Pick]) -> list[str]:
    notes = []
    pick = picks.get(row.network)
    if pick and pick.row is row:
        notes.append("served")
    if row.when < sweep.before.when:
        notes.append("earlier run")
    if row.weights == "random" and len(sweep.networks()) > 1:
        notes.append("random weights")  # for a single network the subtitle says so
    if row.unverified is not None:
        notes.append(f"unverified: {row.unverified}")
    if row.latency and row.latency.variation > NOISY:
        notes.append(f"noisy ({percent(row.latency.variation, decimals=0)})")
    if row.latency and (used := row.latency.cpu_time) and row.latency.p50 > _WAITED * used.p50:
        notes.append(f"CPU time {ms(used.p50)} ms")
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
