"""What became faster or slower between two sweeps, beyond noise. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.rows import Row, Sweep, latency, p50
from bench.timing import overlap
from models.errors import UserError

Verdict = Literal["slower", "faster", "same"]
_CONTROL = "torch"
_CONTROL_PERCENTILE = 90


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One candidate in two sweeps.

    Attributes:
        before: its row in the first.
        after: its row in the second.
        ratio: p50 after over p50 before.
        verdict: ``same`` where the intervals of p50 overlap or the ratio is within the noise.
    """

    before: Row
    after: Row
    ratio: float
    verdict: Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two sweeps, candidate by candidate.

    Attributes:
        changes: of all candidates measured in both, the one that got slower most first.
        noise: a ratio further than this from 1 is beyond noise, as a fraction.
        control: how far torch eager moved (:func:`compare`), or None where it cannot tell.
        lost: candidates measured in the first only.
        new: candidates measured in the second only.
    """

    changes: tuple[Change, ...]
    noise: float
    control: float | None
    lost: tuple[Row, ...]
    new: tuple[Row, ...]

    def verdicts(self, verdict: Verdict) -> list[Change]:
        """Returns the changes of one verdict."""
        return [change for change in self.changes if change.verdict == verdict]


def compare(before: Sweep, after: Sweep, *, least: float = 0.05) -> Comparison:
    """Returns what changed from one sweep to another.

    The interval of p50 is drawn within a run: it does not know how a machine differs from one run
    to the next. Torch eager does: where both sweeps ran the same torch, whatever it moved is the
    machine's. So noise is the larger of ``least`` and what nine in ten of its rows stay within.

    Args:
        before: the first.
        after: the second, of the same machine, its libraries aside.
        least: fraction below which no difference counts.

    Raises:
        UserError: sweeps of different processors, or that have no candidate in common.
    """
    places = [(s.machine.cpu, s.machine.cores, s.machine.gpu) for s in (before, after)]
    if places[0] != places[1]:
        raise UserError(
            f"these were measured on different machines: {_place(before)} and {_place(after)}; "
            "latencies compare on one machine only"
        )
    old, new = ({row.key: row for row in sweep.measured()} for sweep in (before, after))
    both = old.keys() & new.keys()
    if not both:
        raise UserError(
            "the two have no candidate in common: a candidate is an artifact's folder, a runtime, "
            "a batch size and a number of threads"
        )
    control = _control(before, after, [(old[key], new[key]) for key in both])
    noise = max(least, control or 0.0)
    changes = [_change(old[key], new[key], noise) for key in both]
    return Comparison(
        changes=tuple(sorted(changes, key=lambda change: -change.ratio)),
        noise=noise,
        control=control,
        lost=tuple(old[key] for key in old if key not in new),
        new=tuple(new[key] for key in new if key not in old),
    )


def _change(before: Row, after: Row, noise: float) -> Change:
    ratio = p50(after) / p50(before)
    verdict: Verdict = "same"
    if not overlap(latency(before), latency(after)) and _distance(ratio) > noise:
        verdict = "slower" if ratio > 1 else "faster"
    return Change(before=before, after=after, ratio=ratio, verdict=verdict)


def _control(before: Sweep, after: Sweep, rows: list[tuple[Row, Row]]) -> float | None:
    versions = [sweep.machine.versions.get("torch") for sweep in (before, after)]
    moved = [
        _distance(p50(b) / p50(a))
        for a, b in rows
        if a.runtime == _CONTROL and a.latency != b.latency
    ]
    if versions[0] != versions[1] or not moved:
        return None
    return float(np.percentile(moved, _CONTROL_PERCENTILE))


def _distance(ratio: float) -> float:
    """Returns how far a ratio is from 1, the same both ways: 0.5 and 2 are both 1."""
    return max(ratio, 1 / ratio) - 1


def _place(sweep: Sweep) -> str:
    machine = sweep.machine
    return f"{machine.cpu}, {machine.cores} cores, {machine.gpu or 'no GPU'}"
