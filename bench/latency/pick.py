"""Picks what to serve: of one network the fastest, of all within limits of latency and accuracy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from artifact.runtimes.base import is_servable, runs_on_gpu
from artifact.store import SavedPick, save_pick
from bench.latency.pareto import RatedRow, pareto_front, with_accuracy
from bench.latency.record import Row, Sweep, p50, title
from bench.measure.timing import overlap
from core.errors import UserError
from report.format import ms, percent

PRECISIONS = ("fp32", "fp16", "int8")  # the one to prefer first, where speed does not decide
_NAMED = 2  # ties that are named; more are counted
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Pick:
    """The candidate of one network that is to be served.

    Attributes:
        row: the candidate, at batch 1.
        ties: servable candidates whose interval of p50 overlaps that of the fastest, ``row`` left
            out; empty where one is clearly the fastest.
    """

    row: Row
    ties: tuple[Row, ...]

    @property
    def tied(self) -> str:
        """Returns the ties in words: ``a and b``, or ``5 others``."""
        if len(self.ties) > _NAMED:
            return f"{len(self.ties)} others"
        return " and ".join(title(tie) for tie in self.ties)

    @property
    def sentence(self) -> str:
        """Returns the choice in words, with the ties that were broken."""
        row = self.row
        text = f"{row.network}: serve {title(row)}, p50 {p50(row) * 1e3:.2f} ms at batch 1"
        if self.ties:
            text += f" (a tie with {self.tied}: the higher precision first, then the lower p50)"
        return text


def servable(row: Row) -> bool:
    """Returns whether a server may use what ``row`` measured: verified, and without torch."""
    known = row.runtime is not None and is_servable(row.runtime)
    return row.latency is not None and row.unverified is None and known


def pick(sweep: Sweep, network: str) -> Pick | None:
    """Returns the fastest servable candidate of ``network`` at batch 1, or None without one.

    Candidates whose confidence interval of p50 overlaps that of the fastest are tied with it;
    of these the one of highest precision is taken, then the one with the lowest p50.
    """
    rows = [row for row in sweep.measured(network, batch=1) if servable(row)]
    if not rows:
        return None
    fastest = rows[0].latency
    tied = [row for row in rows if row.latency and fastest and overlap(row.latency, fastest)]
    best = min(tied, key=lambda row: (PRECISIONS.index(row.precision), p50(row)))
    return Pick(row=best, ties=tuple(row for row in tied if row is not best))


def pick_all(sweep: Sweep) -> dict[str, Pick]:
    """Returns network to :func:`pick`, of the networks that have one."""
    return {network: best for network in sweep.networks() if (best := pick(sweep, network))}


def write_pick(sweep: Sweep, chosen: Pick, artifacts: Path) -> Path:
    """Returns the file beside the artifacts that now tells the server what to use."""
    row = chosen.row
    return save_pick(
        artifacts / row.network, saved_pick_of(sweep, row, row.folder.rpartition("/")[2])
    )


def saved_pick_of(sweep: Sweep, row: Row, artifact: str) -> SavedPick:
    """Returns the pick that a server reads, with ``artifact`` as the path of its folder."""
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
    """The limits of latency and accuracy that a service must keep to.

    Attributes:
        p99: most seconds of a call, at its 99th percentile; None is any.
        min_top1: least top-1, in [0, 1]; None is the best there is within ``p99``.
    """

    p99: float | None = None
    min_top1: float | None = None

    def __post_init__(self) -> None:
        if self.min_top1 is not None and not 0 <= self.min_top1 <= 1:
            raise UserError(f"min-top1 is {self.min_top1:g}: a fraction from 0 to 1, such as 0.95")

    def holds(self, candidate: RatedRow) -> bool:
        """Returns whether ``candidate`` keeps to both limits."""
        fast = self.p99 is None or candidate.latency.p99 <= self.p99
        return fast and (self.min_top1 is None or candidate.top1 >= self.min_top1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Winner:
    """The candidate to serve, and the front it was taken from.

    Attributes:
        candidate: the winner.
        ties: candidates within the limits that take as long per image, beyond noise.
        front: of all that a server could use, by latency and top-1, at the winner's batch size and
            threads; a member may be outside the limits.
    """

    candidate: RatedRow
    ties: tuple[RatedRow, ...]
    front: tuple[RatedRow, ...]


def seconds(text: str) -> float:
    """Returns the seconds of ``5ms``, ``0.2s`` or ``800us``.

    Raises:
        UserError: anything else.
    """
    found = re.fullmatch(r"([0-9]*\.?[0-9]+) ?(us|ms|s)", text.strip())
    if not found or float(found[1]) == 0:
        raise UserError(f"{text!r} is no duration: a number above 0 and us, ms or s, such as 5ms")
    return float(found[1]) * _UNITS[found[2]]


def choose(sweep: Sweep, goal: Goal) -> Winner:
    """Returns what to serve: within the limits, the least time per image.

    Without a least top-1 it is, of those with the highest top-1 within ``goal.p99``, the one with
    the least time per image. Where candidates tie, the higher precision is taken, then the smaller
    batch, then fewer threads.

    Args:
        sweep: rows of one data set; candidates without a top-1 are left out.
        goal: the limits.

    Raises:
        UserError: nothing keeps to the limits; the message says what comes nearest.
    """
    # Random weights answer nothing, whatever their publisher's would reach.
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
    fastest = min(kept, key=_per_image)
    tied = [one for one in kept if one is fastest or _tie(one, fastest)]
    winner = min(
        tied,
        key=lambda one: (
            PRECISIONS.index(one.row.precision),
            one.row.batch,
            one.row.threads,
            _per_image(one),
        ),
    )
    peers = [
        one
        for one in able
        if (one.row.batch, one.row.threads) == (winner.row.batch, winner.row.threads)
    ]
    return Winner(
        candidate=winner,
        ties=tuple(one for one in tied if one is not winner),
        front=tuple(pareto_front(peers)),
    )


def write_winner(sweep: Sweep, winner: Winner, artifacts: Path) -> Path:
    """Returns the file in ``artifacts`` that now tells the server what to use of all networks."""
    row = winner.candidate.row
    return save_pick(artifacts, saved_pick_of(sweep, row, row.folder))


def _per_image(candidate: RatedRow) -> float:
    return candidate.latency.p50 / candidate.row.batch


def _tie(a: RatedRow, b: RatedRow) -> bool:
    # Calls of different batch sizes are not the same thing to time: only p50 per image compares.
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
