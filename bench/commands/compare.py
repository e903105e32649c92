"""``python -m bench compare``: what changed from one run to another."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro
from rich.table import Table

from bench.compare import compare
from bench.pick import title
from bench.rows import p50
from bench.sweep_file import read_sweep
from bench.table import ms, percent
from models.cli import results


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Say what became faster or slower from one run to another, beyond noise."""

    before: tyro.conf.Positional[Path]
    """Folder with latency.jsonl, or such a file."""
    after: tyro.conf.Positional[Path]
    """Likewise."""
    least: float = 0.05
    """A smaller difference, as a fraction, never counts."""

    def __call__(self) -> int:
        """Prints what changed; returns 1 if anything became slower."""
        found = compare(read_sweep(self.before), read_sweep(self.after), least=self.least)
        out = results()
        table = Table(box=None, pad_edge=False)
        for name in ("Candidate", "Batch", "Threads", "before ms", "after ms", "ratio", ""):
            table.add_column(name, justify="left" if name in ("Candidate", "") else "right")
        for change in (*found.verdicts("slower"), *found.verdicts("faster")):
            a, b = change.before, change.after
            what = "artifact differs" if a.sha256 != b.sha256 else ""
            cells = (str(a.batch), str(a.threads), ms(p50(a)), ms(p50(b)), f"{change.ratio:.2f}")
            name = f"{a.network}: {title(a)}"
            table.add_row(name, *cells, f"{change.verdict}{', ' * bool(what)}{what}")
        if table.row_count:
            out.print(table)
        for name, rows in (("before", found.lost), ("after", found.new)):
            if rows:
                out.print(f"only {name}: {len(rows)} candidates, such as {rows[0].network}")
        control = (
            "torch eager cannot tell how far the machine itself moved"
            if found.control is None
            else f"nine in ten of torch eager's rows moved by at most {percent(found.control)}"
        )
        out.print(
            f"{len(found.changes)} candidates: {len(found.verdicts('slower'))} slower, "
            f"{len(found.verdicts('faster'))} faster, {len(found.verdicts('same'))} the same "
            f"within {percent(found.noise)}; {control}"
        )
        return 1 if found.verdicts("slower") else 0
