"""Picks candidates to serve: the fastest of a network, or the best of all within given limits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from artifact.runtimes.base import is_servable, runs_on_gpu
from artifact.store import SavedPick, save_pick
from bench.latency.pareto import RatedRow, as_decided, pareto_front, with_accuracy
from bench.latency.record import Row, Sweep, latency, p50, title
from bench.measure.timing import Latency, decisive, overlap
from core.errors import UserError
from report.format import ms, percent

PRECISIONS = ("fp32", "fp16", "bf16", "int8")  # order of preference among ties
_NEAR = 1.1  # a tie whose p50 is more than this times the lowest one is no reason to be slower
_NAMED = 2  # if there are more ties, only their number is given
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pick:
    """The candidate of a network that is to be served.

    Attributes:
        row: the candidate, at batch size 1.
        ties: other servable candidates whose interval of p50 overlaps that of the fastest.
    """

    row: Row
    ties: tuple[Row, ...]

    @property
    def tied(self) -> str:
        """Returns the ties as text: ``a and b``, or ``5 others``."""
        if len(self.ties) > _NAMED:
            return f"{len(self.ties)} others"
        return " and ".join(title(tie) for tie in self.ties)

    @property
    def sentence(self) -> str:
        """Returns a sentence with the pick and its ties."""
        row = self.row
        text = f"{row.network}: serve {title(row)}, p50 {p50(row) * 1e3:.2f} ms at batch 1"
        if self.ties:
            text += (
                f" (a tie with {self.tied}: within a tenth the higher precision first, then the "
                "lower p50)"
            )
        return text


def servable(row: Row) -> bool:
    """Returns whether a server can use the candidate: measured, verified, in a servable runtime."""
    known = row.runtime is not None and is_servable(row.runtime)
    return row.latency is not None and row.unverified is None and known


def pick(sweep: Sweep, network: str) -> Pick | None:
    """Returns the fastest servable candidate of ``network`` at batch size 1, or None without one.

    Candidates whose 95 % interval of p50 overlaps that of the fastest tie with it. Among ties whose
    p50 is at most a tenth more, the highest precision wins, then the lowest p50.
    """
    rows = [row for row in sweep.measured(network, batch=1) if servable(row)]
    if not rows:
        return None
    best, tied = preferred([row.precision for row in rows], [latency(row) for row in rows])
    return Pick(row=rows[best], ties=tuple(rows[index] for index in tied if index != best))


def preferred(precisions: Sequence[str], latencies: Sequence[Latency]) -> tuple[int, list[int]]:
    """Returns the index of the candidate to serve, and those of all that tie for the fastest."""
    times = decisive(latencies)
    fastest = min(times, key=lambda time: time.p50)
    tied = [index for index, time in enumerate(times) if overlap(time, fastest)]
    near = [index for index in tied if times[index].p50 <= _NEAR * fastest.p50]
    best = min(near, key=lambda index: (PRECISIONS.index(precisions[index]), times[index].p50))
    return best, tied


def pick_all(sweep: Sweep) -> dict[str, Pick]:
    """Returns network to :func:`pick`, for the networks that have one."""
    return {network: best for network in sweep.networks() if (best := pick(sweep, network))}


def tied_for_fastest(sweep: Sweep) -> list[Row]:
    """Returns the picks of ``sweep`` that tie with others, and those others."""
    picks = [best for best in pick_all(sweep).values() if best.ties]
    return [row for best in picks for row in (best.row, *best.ties)]


def write_pick(sweep: Sweep, chosen: Pick, artifacts: Path) -> Path:
    """Writes the pick for the server into the network's folder and returns the file's path."""
    row = chosen.row
    return save_pick(
        artifacts / row.network, saved_pick_of(sweep, row, row.folder.rpartition("/")[2])
    )


def saved_pick_of(sweep: Sweep, row: Row, artifact: str) -> SavedPick:
    """Returns the pick in the form that the server reads; ``artifact`` is the folder's path."""
    machine = sweep.machine
    assert row.runtime is not None, "a measured row has a runtime"
    processor = machine.gpu if runs_on_gpu(row.runtime) else machine.cpu
    return SavedPick(
        artifact=artifact,
        runtime=row.runtime,
        batch=row.batch,
        threads=row.threads,
        p50_s=p50(row),
        machine=processor or "an unknown GPU",
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """The limits of latency and accuracy.

    Attributes:
        p99: largest 99th percentile of latency in seconds; None for no limit.
        min_top1: lowest top-1, in [0, 1]; None for the highest one available within ``p99``.
    """

    p99: float | None = None
    min_top1: float | None = None

    def __post_init__(self) -> None:
        if self.min_top1 is not None and not 0 <= self.min_top1 <= 1:
            raise UserError(f"min-top1 is {self.min_top1:g}: a fraction from 0 to 1, such as 0.95")

    def holds(self, candidate: RatedRow) -> bool:
        """Returns whether ``candidate`` is within both limits."""
        fast = self.p99 is None or candidate.latency.p99 <= self.p99
        return fast and (self.min_top1 is None or candidate.top1 >= self.min_top1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Winner:
    """The candidate to serve, and its Pareto front.

    Attributes:
        candidate: the winner.
        ties: candidates within the limits whose interval of p50 overlaps that of the fastest.
        front: Pareto front of all servable candidates with the winner's batch size and threads;
            members may be outside the limits.
    """

    candidate: RatedRow
    ties: tuple[RatedRow, ...]
    front: tuple[RatedRow, ...]


def seconds(text: str) -> float:
    """Parses a duration such as ``5ms``, ``0.2s`` or ``800us`` and returns its seconds.

    Raises:
        UserError: not a duration, or 0.
    """
    found = re.fullmatch(r"([0-9]*\.?[0-9]+) ?(us|ms|s)", text.strip())
    if not found or float(found[1]) == 0:
        raise UserError(f"{text!r} is no duration: a number above 0 and us, ms or s, such as 5ms")
    return float(found[1]) * _UNITS[found[2]]


def choose(sweep: Sweep, goal: Goal) -> Winner:
    """Returns the servable candidate within the limits that has the lowest p50 per image.

    Without ``goal.min_top1``, only candidates with the highest top-1 within ``goal.p99`` compete.
    Among ties the higher precision wins, then the smaller batch size, then fewer threads.

    Args:
        sweep: rows of one data set; candidates without a top-1 are ignored.
        goal: the limits.

    Raises:
        UserError: no candidate is within the limits; the message names the nearest ones.
    """
    # Random weights cannot classify, even if the network has a published top-1.
    able = [
        one for one in with_accuracy(sweep) if servable(one.row) and one.row.weights != "random"
    ]
    if not able:
        raise UserError(
            "nothing that a server could use has both a latency and a top-1; train or fetch "
            "weights, export, then: make bench"
        )
    kept = [one for one in able if goal.holds(one)]
    if not kept:
        raise UserError(_nearest(able, goal))
    if goal.min_top1 is None:
        best = max(one.top1 for one in kept)
        kept = [one for one in kept if one.top1 == best]
    judged = as_decided(kept)
    fastest = min(judged, key=_per_image)
    tied = [
        (one, same)
        for one, same in zip(kept, judged, strict=True)
        if same is fastest or _tie(same, fastest)
    ]
    winner, _ = min(
        tied,
        key=lambda tie: (
            PRECISIONS.index(tie[0].row.precision),
            tie[0].row.batch,
            tie[0].row.threads,
            _per_image(tie[1]),
        ),
    )
    peers = [
        one
        for one in able
        if (one.row.batch, one.row.threads) == (winner.row.batch, winner.row.threads)
    ]
    return Winner(
        candidate=winner,
        ties=tuple(one for one, _ in tied if one is not winner),
        front=tuple(pareto_front(peers)),
    )


def write_winner(sweep: Sweep, winner: Winner, artifacts: Path) -> Path:
    """Writes the winner for the server into ``artifacts`` and returns the file's path."""
    row = winner.candidate.row
    return save_pick(artifacts, saved_pick_of(sweep, row, row.folder))


def _per_image(candidate: RatedRow) -> float:
    return candidate.latency.p50 / candidate.row.batch


def _tie(a: RatedRow, b: RatedRow) -> bool:
    # Intervals are of calls, so they are comparable only for the same batch size and threads.
    same = (a.row.batch, a.row.threads) == (b.row.batch, b.row.threads)
    return same and overlap(a.latency, b.latency)


def _nearest(able: Sequence[RatedRow], goal: Goal) -> str:
    limits = []
    if goal.p99 is not None:
        limits.append(f"p99 within {ms(goal.p99)} ms")
    if goal.min_top1 is not None:
        limits.append(f"top-1 of at least {percent(goal.min_top1)}")
    fastest = min(able, key=lambda one: one.latency.p99)
    best = max(able, key=lambda one: one.top1)
    return (
        f"none of {len(able)} candidates has {' and '.join(limits)}: the fastest is "
        f"{_name(fastest)}, the most accurate {_name(best)}"
    )


def _name(one: RatedRow) -> str:
    return f"{one.row.folder} (p99 {ms(one.latency.p99)} ms, {percent(one.top1)})"
