"""``python -m bench pick``: which network to serve within a limit of latency and accuracy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from rich.table import Table

from bench.latency.constraints import Goal, choose, seconds, write_winner
from bench.latency.pareto import RatedRow
from bench.latency.pick import title
from bench.latency.sweep_file import read_sweep
from core.cli import results
from report.format import ms, percent

_COLUMNS = ("Network", "Artifact", "Batch", "Threads", "p50 ms", "p99 ms", "Top-1", "")
_NUMERIC = frozenset(_COLUMNS[2:7])


@dataclass(frozen=True, kw_only=True)
class Pick:
    """Choose what to serve from what was measured here, and tell the server."""

    p99: str | None = None
    """Most time of a call at its 99th percentile, such as 5ms."""
    min_top1: float | None = None
    """Least top-1, a fraction, such as 0.95; left out: the best there is within --p99."""
    data: str | None = None
    """Only networks for this data; all if left out."""
    batches: tuple[int, ...] = (1,)
    """Images per call that may win; the server here sends one image a call."""
    out: Path = Path("reports")
    """Folder that holds latency.jsonl."""
    artifacts: Path = Path("artifacts")
    """Folder of all artifacts; gets choice.json, which make serve reads."""

    def __call__(self) -> None:
        """Prints the front, the winner and the file that names it."""
        goal = Goal(p99=None if self.p99 is None else seconds(self.p99), min_top1=self.min_top1)
        sweep = read_sweep(self.out).only(data=self.data)
        rows = tuple(row for row in sweep.rows if row.batch in self.batches)
        winner = choose(replace(sweep, rows=rows), goal)
        out = results()
        table = Table(title="No other is faster and as accurate", box=None, pad_edge=False)
        for name in _COLUMNS:
            table.add_column(name, justify="right" if name in _NUMERIC else "left")
        for one in winner.front:
            table.add_row(*_cells(one), "" if goal.holds(one) else "outside the limits")
        out.print(table)
        best = winner.candidate
        out.print(
            f"serve {best.row.network}: {title(best.row)}, batch {best.row.batch}, "
            f"{best.row.threads} thread{'s' if best.row.threads > 1 else ''}: "
            f"p99 {ms(best.latency.p99)} ms, top-1 {percent(best.top1)} of {best.source}"
        )
        for tie in winner.ties:
            out.print(f"a tie: {tie.row.network}, {title(tie.row)}")
        if best.row.batch > 1:
            out.print("the server here sends one image a call: this batch is for a server of yours")
        print(write_winner(sweep, winner, self.artifacts))


def _cells(one: RatedRow) -> tuple[str, ...]:
    row = one.row
    times = (ms(one.latency.p50), ms(one.latency.p99))
    return (row.network, title(row), str(row.batch), str(row.threads), *times, percent(one.top1))
