"""``python -m bench compare``: what changed from one run to another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import tyro

from bench.latency.compare import Change, Comparison, Verdict, compare
from bench.latency.pick import title
from bench.latency.rerun import Again, rerun
from bench.latency.rows import p50
from bench.latency.sweep_file import read_sweep
from bench.measure.timing import Plan
from core.cli import results
from core.errors import UserError
from report.format import ms
from report.section import Table
from report.terminal import print_table

_MOVED: tuple[Verdict, ...] = ("slower", "faster", "look again")
_COUNTED: dict[Verdict, str] = {
    "slower": "slower",
    "faster": "faster",
    "look again": "to be looked at again",
    "same": "the same",
}


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Say what became faster or slower from one run to another, beyond noise."""

    before: tyro.conf.Positional[Path]
    """Folder with latency.jsonl, or such a file."""
    after: tyro.conf.Positional[Path]
    """Likewise."""
    least: float = 0.05
    """A smaller difference, as a fraction, never counts."""
    rerun: bool = False
    """Measure what moved, and what is of another artifact, again: both versions interleaved."""
    artifacts: Path = Path("artifacts")
    """Folder of all artifacts as they are now, for --rerun."""
    artifacts_before: Path | None = None
    """Folder of all artifacts as they were, for --rerun; --artifacts if left out."""
    seconds: float = 3.0
    """Of measuring each version, for --rerun."""

    def __call__(self) -> int:
        """Prints what changed; returns 1 if anything became slower."""
        if not 0 <= self.least < float("inf"):
            raise UserError(
                f"least is {self.least}: it must be a fraction of at least 0, such as 0.05"
            )
        found = compare(read_sweep(self.before), read_sweep(self.after), least=self.least)
        moved = found.verdicts(*_MOVED)
        if moved:
            print_table(_table(moved))
        for sentence in _sentences(found):
            results().print(sentence)
        if not self.rerun:
            return 1 if found.verdicts("slower") else 0
        wanted = [change for change in found.changes if change in moved or change.why is not None]
        chosen = [change for change in wanted if change.repeatable]
        left = [change for change in wanted if not change.repeatable]
        if left:
            results().print(
                f"not measured again: {len(left)} candidates, such as {_name(left[0])[0]} "
                f"({left[0].why}): one process runs one version of a library"
            )
        status = 1 if any(change.verdict == "slower" for change in left) else 0
        if not chosen and left:
            return status
        if not chosen:
            results().print("nothing moved and nothing changed: there is nothing to measure again")
            return 0
        again = rerun(
            chosen,
            self.artifacts_before or self.artifacts,
            self.artifacts,
            plan=Plan(seconds=self.seconds, limit=self.seconds),
            least=self.least,
        )
        print_table(_again_table(again))
        return 1 if any(one.verdict == "slower" for one in again) else status


def _name(change: Change) -> tuple[str, str, str]:
    row = change.after
    return f"{row.network}: {title(row)}", str(row.batch), str(row.threads)


def _table(changes: Sequence[Change]) -> Table:
    header = (
        "Candidate", "Batch", "Threads", "before ms", "after ms", "ratio", "machine's", "its own",
        "by chance up to", "verdict",
    )  # fmt: skip
    rows = tuple(
        (
            *_name(change),
            *(ms(p50(row)) for row in (change.before, change.after)),
            *(f"{value:.2f}" for value in (change.ratio, change.drift, change.own, change.noise)),
            ", ".join(filter(None, (change.verdict, change.why))),
        )
        for change in changes
    )
    return Table(header=header, rows=rows, numeric=frozenset(header[1:-1]))


def _again_table(again: Sequence[Again]) -> Table:
    header = ("Measured again", "Batch", "Threads", "after / before (turns)", "verdict")
    rows = tuple((*_name(one.change), str(one.times), one.verdict) for one in again)
    return Table(header=header, rows=rows, numeric=frozenset(header[1:3]))


def _sentences(found: Comparison) -> list[str]:
    """Returns what was found, in words."""
    sentences = []
    for name, rows in (("before", found.lost), ("after", found.new)):
        if rows:
            sentences.append(f"only {name}: {len(rows)} candidates, such as {rows[0].network}")
    if found.reused:
        sentences.append(
            f"{found.reused} candidates were measured once: the second run reused them"
        )
    counts = ", ".join(f"{len(found.verdicts(one))} {name}" for one, name in _COUNTED.items())
    sentences.append(f"{len(found.changes)} candidates: {counts}; {_control(found)}")
    if found.verdicts("look again"):
        sentences.append(
            "look again: one candidate moved though nothing of it changed, or too few did not "
            "change to tell what is the machine's; compare --rerun interleaves both versions"
        )
    return sentences


def _control(found: Comparison) -> str:
    controls = found.controls
    if not controls:
        return "nothing unchanged was measured in both: how far the machine moved is not known"
    drift = median(change.drift for change in controls)
    noise = median(change.noise for change in found.changes)
    return (
        f"{len(controls)} did not change and moved by {drift:.2f}, which is taken for the "
        f"machine's; beyond that a candidate may move by {noise:.2f} by chance (median)"
    )
