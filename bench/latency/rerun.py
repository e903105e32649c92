"""Two versions of the same candidates, measured again, interleaved in one run.

Between two runs a machine may be twice as fast; in one run both versions meet what it does, turn
by turn, and nothing has to be guessed of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

from rich.progress import Progress

from artifact.artifact import Artifact
from bench.latency.candidates import load_candidates
from bench.latency.compare import Change, Verdict
from bench.latency.grid import Grid
from bench.latency.rows import Row, times
from bench.measure.spread import Spread
from bench.measure.timing import Call, Plan, Timed, measure, turn_ratios
from core.cli import notes
from core.conditions import now
from core.errors import UserError

Side = Literal["before", "after"]
SURE = 0.01  # chance of a verdict on two equal candidates


@dataclass(frozen=True, kw_only=True, slots=True)
class Again:
    """A change, measured again.

    Attributes:
        change: between the two runs.
        times: how many times as long it takes after, turn by turn; in words, why not known.
        verdict: of the turns; that of the change where there are none.
    """

    change: Change
    times: Spread | str
    verdict: Verdict


def rerun(
    changes: Sequence[Change],
    before: Path,
    after: Path,
    *,
    plan: Plan,
    least: float = 0.05,
) -> list[Again]:
    """Returns each of ``changes``, with both versions measured now, interleaved.

    Args:
        changes: what to measure.
        before: folder of all artifacts as they were, or where some of them still are.
        after: likewise, as they are.
        plan: how much of each version.
        least: fraction below which no difference counts.

    Raises:
        UserError: no candidate has both its artifacts there.
    """
    taken: dict[tuple[int, Side], Row | str] = {}
    calls: dict[tuple[int, Side], Call | Timed] = {}
    when = now()
    with Progress(console=notes(), auto_refresh=False) as progress, ExitStack() as stack:
        for index, change in enumerate(changes):
            sides: tuple[tuple[Side, Row, list[Path]], ...] = (
                ("before", change.before, [before, after]),
                ("after", change.after, [after, before]),
            )
            for side, row, roots in sides:
                taken[index, side], call = _open(replace(row, when=when), roots, plan, stack)
                if call is not None:
                    calls[index, side] = call
        ready = {i for i, _ in calls if {(i, "before"), (i, "after")} <= calls.keys()}
        if not ready:
            reasons = dict.fromkeys(row for row in taken.values() if isinstance(row, str))
            raise UserError(f"nothing can be measured again: {'; '.join(reasons)}")
        calls = {key: call for key, call in calls.items() if key[0] in ready}
        task = progress.add_task("Measuring again", total=len(calls) * (plan.rounds + 1))
        tick = partial(progress.update, task, advance=1, refresh=True)
        for key, found in measure(calls, plan, tick=tick).items():
            opened = taken[key]
            assert isinstance(opened, Row), "what was called has a row"
            taken[key] = opened.with_latency("host", found)
    return [
        _again(change, taken[index, "before"], taken[index, "after"], least)
        for index, change in enumerate(changes)
    ]


def _open(
    row: Row, roots: Iterable[Path], plan: Plan, stack: ExitStack
) -> tuple[Row | str, Call | Timed | None]:
    """Returns ``row`` without its latency, and a call of its artifact; in words, why there is none.

    ``stack`` will close it.
    """
    root = next((root for root in roots if _holds(root, row)), None)
    if root is None:
        return f"{row.folder} as it was measured ({str(row.sha256)[:12]}) is not at hand", None
    assert row.runtime is not None, "a measured row has a runtime"
    grid = Grid(
        artifacts=root,
        batches=(row.batch,),
        threads=(row.threads,),
        runtimes=(row.runtime,),
        compile=True,
    )
    blank = replace(row, latency=None, device=None, graph=None)
    (candidate,) = load_candidates(blank, grid, plan, {}, stack)
    call = candidate.calls.get("host")
    if call is None:
        return f"{row.folder} in {row.runtime}: {candidate.row.reason}", None
    return candidate.row, call


def _holds(root: Path, row: Row) -> bool:
    """Returns whether the artifact under ``root`` is the one that ``row`` was measured of."""
    try:
        artifact = Artifact.load(root / row.folder)
    except UserError:  # none, or a damaged one: then it is not that one
        return False
    return artifact.sha256s[artifact.model_file.name] == row.sha256


def _again(change: Change, before: Row | str, after: Row | str, least: float) -> Again:
    for row in (before, after):
        if isinstance(row, str):
            return Again(change=change, times=row, verdict=change.verdict)
    assert isinstance(before, Row), "both were measured"
    assert isinstance(after, Row), "both were measured"
    ratio = times(after, before)
    if isinstance(ratio, str):
        return Again(change=change, times=ratio, verdict=change.verdict)
    assert before.latency is not None, "both were measured"
    assert after.latency is not None, "both were measured"
    low, high = sure_ends(turn_ratios(after.latency, before.latency))
    verdict: Verdict = "same"
    if low > 1 and ratio.median > 1 + least:
        verdict = "slower"
    elif high < 1 and ratio.median < 1 / (1 + least):
        verdict = "faster"
    return Again(change=change, times=ratio, verdict=verdict)


def sure_ends(ratios: Sequence[float]) -> tuple[float, float]:
    """Returns an interval of the true median of turns, wrong once in a hundred.

    From the order of the turns alone, whatever their distribution; of fewer than eight turns the
    least and the greatest, which are wrong more often.
    Source: the sign test's interval, Conover, "Practical nonparametric statistics", section 3.2.
    """
    from scipy.stats import binom

    ordered = sorted(ratios)
    dropped = max(int(binom.ppf(SURE / 2, len(ordered), 0.5)) - 1, 0)  # at each end
    return ordered[dropped], ordered[-1 - dropped]
