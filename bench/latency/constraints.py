"""Picks the network to serve within limits of latency and accuracy."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from artifact.store import save_pick
from bench.latency.pareto import RatedRow, pareto_front, with_accuracy
from bench.latency.pick import PRECISIONS, saved_pick_of, servable
from bench.latency.rows import Sweep
from bench.measure.timing import overlap
from core.errors import UserError
from report.format import ms, percent

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """What a service must keep to.

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
