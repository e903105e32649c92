"""``python -m bench run``, ``report``, ``pick`` and ``compare``."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Annotated

import tyro

from artifact.runtimes.base import RUNTIMES
from bench.latency.compare import Again, Change, Comparison, Verdict, compare, rerun
from bench.latency.measure import is_of, run_sweep
from bench.latency.pareto import RatedRow
from bench.latency.pick import Goal, choose, pick_all, seconds, write_pick, write_winner
from bench.latency.plan import Grid, GridFlags, PlanFlags, find_artifacts
from bench.latency.record import Sweep, earlier_sweep, p50, read_sweep, title, write_sweep
from bench.latency.sections import show
from bench.layers.explanation import load_graphs, profile
from bench.measure.timing import Plan
from core.cli import notes, results
from core.errors import UserError
from report.format import ms, percent
from report.section import Table
from report.terminal import print_table

_MOVED: tuple[Verdict, ...] = ("slower", "faster", "look again")
_COUNTED: dict[Verdict, str] = {
    "slower": "slower",
    "faster": "faster",
    "look again": "to be looked at again",
    "same": "the same",
}
_QUICK = tuple(name for name, spec in RUNTIMES.items() if spec.quick)
_QUICK_HELP = (
    f"A first look in under a minute: batch 1, 30 samples or 0.2 s in 5 rounds, in runtimes that "
    f"load fast ({', '.join(_QUICK)}). Torch and OpenVINO alone take a minute to load twelve "
    "networks."
)


@dataclass(frozen=True, kw_only=True)
class Run(GridFlags, PlanFlags):
    """Measure every artifact in every runtime, pick the fastest to serve, write the report.

    `bench device` measures on a phone, `bench peers` beside other toolchains; each has a --help.
    """

    model: str | None = None
    """Only this network; all if left out."""
    batches: tuple[int, ...] = (1, 8)
    """Batch sizes."""
    threads: tuple[int, ...] = (1,)
    """CPU threads inside one call; each of several numbers is measured."""
    runtimes: tuple[str, ...] = ()
    """Only these runtimes; all if left out."""
    compile: bool = False
    """Measure torch-compile, too: compiling a network for a batch size takes minutes."""
    extra: int = 12
    """Most further rounds of candidates that tie for the fastest of their network."""
    fresh: bool = False
    """Measure all candidates again; otherwise rows of the same artifacts are reused."""
    all: bool = False
    """Print all rows and sentences of the report, even if they do not fit a screen."""
    quick: Annotated[bool, tyro.conf.arg(help=_QUICK_HELP)] = False

    def __call__(self) -> None:
        """Measures, writes the report, and prints a table and the path of the report.

        Raises:
            UserError: nothing of what was asked for could be measured.
        """
        plan = dataclasses.replace(self.plan(), extra=self.extra)
        if self.quick:
            plan = dataclasses.replace(plan, count=30, seconds=0.1, limit=0.2, rounds=5, extra=0)
        grid = self.grid(
            model=self.model,
            batches=self.batches,
            threads=self.threads,
            runtimes=self.runtimes or (_QUICK if self.quick else ()),
            compile=self.compile,
        )
        if self.quick:
            grid = replace(grid, batches=(1,))
        if self.quick and not self.runtimes and (left := _left_out(grid)):
            notes().print(f"--quick leaves out {', '.join(left)}", soft_wrap=True)
        sweep = run_sweep(
            grid,
            plan,
            known=earlier_sweep(self.out, fresh=self.fresh),
            fresh=self.fresh,
            save=lambda sweep: write_sweep(sweep, self.out),
        )
        write_sweep(sweep, self.out)
        sweep = sweep.only(self.model, self.data).of(grid.network)
        if not self.quick:
            graphs, threads = load_graphs(grid), min(grid.threads)
            profile(graphs, grid.batches, threads, self.out, sweep=sweep, fresh=self.fresh)
        for chosen in pick_all(sweep).values():
            write_pick(sweep, chosen, grid.artifacts)
        show(sweep, self.out, every=self.all)
        _check_measured(sweep, grid)


def _check_measured(sweep: Sweep, grid: Grid) -> None:
    """Raises UserError if no row that ``grid`` asked for has a latency; others may be earlier."""
    # A row without a runtime is of an artifact that could not be loaded.
    asked = [row for row in sweep.rows if row.runtime is None or is_of(row, grid)]
    if any(row.latency for row in asked):
        return
    reasons = list(dict.fromkeys(row.reason for row in asked if row.reason))
    if not reasons:
        raise UserError(
            f"nothing could be measured: no artifact in {grid.artifacts} runs in "
            f"{' or '.join(grid.runtimes)}; export a format that does, or leave out --runtimes"
        )
    more = f", and {len(reasons) - 1} more reasons" if len(reasons) > 1 else ""
    raise UserError(f"nothing could be measured: {reasons[0]}{more}")


def _left_out(grid: Grid) -> list[str]:
    """Returns the runtimes that take artifacts of ``grid`` and are not measured, but compilers."""
    formats = {folder.name.rpartition("-")[0] for folder in find_artifacts(grid)}
    return [
        name
        for name, spec in RUNTIMES.items()
        if formats & {*spec.formats} and name not in grid.runtimes and not spec.compiles
    ]


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write the report again from the recorded measurements."""

    model: str | None = None
    """Only this network; all if left out."""
    data: str | None = None
    """Only artifacts for this data; all if left out."""
    out: Path = Path("reports")
    """Folder that holds latency.jsonl."""
    all: bool = False
    """Print all rows and sentences of the report, even if they do not fit a screen."""

    def __call__(self) -> None:
        """Writes the report and prints the table."""
        show(read_sweep(self.out).only(self.model, self.data), self.out, every=self.all)


@dataclass(frozen=True, kw_only=True)
class Pick:
    """Choose from the measurements what to serve, and tell the server."""

    p99: str | None = None
    """Largest 99th percentile of latency, such as 5ms."""
    min_top1: float | None = None
    """Lowest top-1, a fraction such as 0.95; if left out, the highest available within --p99."""
    data: str | None = None
    """Only networks for this data; all if left out."""
    batches: tuple[int, ...] = (1,)
    """Batch sizes to choose from; make serve runs one image per call."""
    out: Path = Path("reports")
    """Folder that holds latency.jsonl."""
    artifacts: Path = Path("artifacts")
    """Folder of all artifacts; choice.json is written into it, which make serve reads."""

    def __call__(self) -> None:
        """Writes the choice, and prints the front, the winner and the path of the file."""
        goal = Goal(p99=None if self.p99 is None else seconds(self.p99), min_top1=self.min_top1)
        sweep = read_sweep(self.out).only(data=self.data)
        rows = tuple(row for row in sweep.rows if row.batch in self.batches)
        winner = choose(replace(sweep, rows=rows), goal)
        out = results()
        out.print("No other is faster and as accurate:")
        print_table(_front_table(winner.front, goal))
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


def _front_table(front: Sequence[RatedRow], goal: Goal) -> Table:
    header = ("Network", "Artifact", "Batch", "Threads", "p50 ms", "p99 ms", "Top-1", "")
    rows = tuple(
        (
            *(one.row.network, title(one.row), str(one.row.batch), str(one.row.threads)),
            *(ms(one.latency.p50), ms(one.latency.p99), percent(one.top1)),
            "" if goal.holds(one) else "outside the limits",
        )
        for one in front
    )
    return Table(header=header, rows=rows, numeric=frozenset(header[2:7]))


@dataclass(frozen=True, kw_only=True)
class Compare:
    """Show which candidates became significantly faster or slower between two runs."""

    before: tyro.conf.Positional[Path]
    """First run: a folder with latency.jsonl, or such a file."""
    after: tyro.conf.Positional[Path]
    """Second run: a folder with latency.jsonl, or such a file."""
    least: float = 0.05
    """Differences below this fraction are ignored."""
    rerun: bool = False
    """Measure candidates that moved or whose artifact changed again, both versions interleaved."""
    artifacts: Path = Path("artifacts")
    """Folder of all artifacts as they are now, for --rerun."""
    artifacts_before: Path | None = None
    """Folder of all artifacts as they were, for --rerun; --artifacts if left out."""
    seconds: float = 3.0
    """Seconds to measure each version, for --rerun."""

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
    """Returns the findings in sentences."""
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
    if any(change.by_cpu_time for change in found.changes):
        sentences.append("ratios of one thread are those of its CPU time, where both runs kept it")
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
