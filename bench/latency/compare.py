"""Compares two sweeps: which candidates became faster or slower, beyond noise.

A machine is faster in one run than in another: two runs of the same artifacts lay 0.42 to 1.77
apart from their mean on a busy machine, all candidates together. So candidates that did not change
are the control: what they have in common is the machine's, and how far each of them lies from that
is what a single candidate does between two runs of its own accord. The interval within a run knows
of neither. Measured again, interleaved in one run, both versions see the same load, turn by turn.

Source of the estimate from few controls: Smyth, "Linear models and empirical Bayes methods", 2004
(a moderated t: the spread is estimated from the controls and from what is known beforehand).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import exp, log, sqrt
from pathlib import Path
from statistics import median
from typing import Literal

from artifact.artifact import Artifact
from artifact.runtimes.base import RUNTIMES
from bench.experiment import progress_bars
from bench.latency.measure import load_candidates
from bench.latency.plan import Grid
from bench.latency.record import Row, Sweep, latency, p50, times
from bench.measure.spread import Spread
from bench.measure.timing import Call, Latency, Plan, Timed, measure, turn_ratios
from core.conditions import now
from core.errors import UserError

Verdict = Literal["slower", "faster", "look again", "same"]
ALARMS = 0.02  # pairs of runs of the same artifacts of which one may say that something moved
FEWEST = 2  # controls: with fewer, what is the machine's cannot be told
# What is known beforehand of how far a candidate lies from the others between two runs on a machine
# that is quiet, and as how many controls it counts.
_SPREAD, _KNOWN = 0.06, 4
_ARTIFACT = "artifact differs"
_NORMAL = 1.96  # standard errors of a 95 % interval
Side = Literal["before", "after"]
SURE = 0.01  # chance of a verdict on two equal candidates


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One candidate in two sweeps.

    Attributes:
        before: its row in the first.
        after: its row in the second.
        ratio: p50 after over p50 before, as measured.
        drift: the part of it that is the machine's: the median ratio of its controls.
        noise: how many times slower or faster it may be, besides the drift, by chance.
        why: what differs, such as the artifact; None where nothing does.
        verdict: ``look again`` where it moved and it is not sure that this is its own: nothing of
            it changed and no other moved, or too few candidates did not change.
    """

    before: Row
    after: Row
    ratio: float
    drift: float
    noise: float
    why: str | None
    verdict: Verdict

    @property
    def own(self) -> float:
        """Returns how many times slower it became, without the machine's part."""
        return self.ratio / self.drift

    @property
    def repeatable(self) -> bool:
        """Returns whether one process can run both versions: two of a library it cannot."""
        return self.why in (None, _ARTIFACT)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Two sweeps, candidate by candidate.

    Attributes:
        changes: of all candidates measured in both, the one that got slower most first.
        reused: how many of them are one measurement, which the second sweep took over.
        lost: candidates measured in the first only.
        new: candidates measured in the second only.
    """

    changes: tuple[Change, ...]
    reused: int
    lost: tuple[Row, ...]
    new: tuple[Row, ...]

    def verdicts(self, *verdicts: Verdict) -> list[Change]:
        """Returns the changes with one of ``verdicts``."""
        return [change for change in self.changes if change.verdict in verdicts]

    @property
    def controls(self) -> list[Change]:
        """Returns the candidates that were measured twice and did not change."""
        return [change for change in self.changes if change.why is None and _is_new(change)]


def compare(before: Sweep, after: Sweep, *, least: float = 0.05) -> Comparison:
    """Returns what changed from one sweep to another.

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
    both = [key for key in old if key in new]
    if not both:
        raise UserError(
            "the two have no candidate in common: a candidate is an artifact's folder, a runtime, "
            "a batch size and a number of threads"
        )
    pairs = [_Pair.of(old[key], new[key], _why(old[key], new[key], before, after)) for key in both]
    groups: dict[tuple[str, str], list[_Pair]] = {}
    for pair in pairs:
        if not pair.reused:  # only rows of the same two runs tell of each other
            groups.setdefault((pair.before.when, pair.after.when), []).append(pair)
    changes = [pair.unmoved() for pair in pairs if pair.reused]
    for group in groups.values():
        changes += _look_again(_judge(group, len(both), least))
    return Comparison(
        changes=tuple(sorted(changes, key=lambda change: -change.own)),
        reused=sum(pair.reused for pair in pairs),
        lost=tuple(old[key] for key in old if key not in new),
        new=tuple(new[key] for key in new if key not in old),
    )


@dataclass(frozen=True, slots=True)
class _Pair:
    """One candidate in two sweeps: the logarithm of its ratio, and the variance of that."""

    before: Row
    after: Row
    why: str | None
    moved: float
    variance: float

    @classmethod
    def of(cls, before: Row, after: Row, why: str | None) -> _Pair:
        moved = log(p50(after) / p50(before))
        return cls(
            before, after, why, moved, sum(map(_variance, (latency(before), latency(after))))
        )

    @property
    def reused(self) -> bool:
        """Returns whether both are one measurement."""
        return self.before.latency == self.after.latency

    def change(self, drift: float, noise: float, verdict: Verdict) -> Change:
        return Change(
            before=self.before,
            after=self.after,
            ratio=exp(self.moved),
            drift=exp(drift),
            noise=exp(noise),
            why=self.why,
            verdict=verdict,
        )

    def unmoved(self) -> Change:
        return self.change(0.0, 0.0, "same")


def _variance(taken: Latency) -> float:
    """Returns the variance of the logarithm of p50, within a run."""
    low, high = taken.interval
    return (log(high / low) / 2 / _NORMAL) ** 2


def _judge(pairs: Sequence[_Pair], tests: int, least: float) -> list[Change]:
    """Returns the verdict on each of ``pairs``, which are of the same two runs.

    Each is held against the others that did not change; against all others where fewer than two
    did not, and then nothing is sure.
    """
    from scipy.stats import t

    changes = []
    for pair in pairs:
        others = [other for other in pairs if other is not pair]
        controls = [other for other in others if other.why is None]
        sure = len(controls) >= FEWEST
        chosen = controls if sure else others
        drift = median(other.moved for other in chosen) if chosen else 0.0
        apart = [max((one.moved - drift) ** 2 - one.variance, 0.0) for one in chosen]
        if len(chosen) > FEWEST:  # another that moved must not hide this one
            apart.remove(max(apart))
        weight = max(_KNOWN + len(apart) - 1, 1)
        spread = (_KNOWN * _SPREAD**2 + sum(apart)) / weight  # a variance
        limit = float(t.ppf(1 - ALARMS / 2 / tests, weight))
        noise = limit * sqrt(spread * (1 + 1 / max(len(chosen), 1)) + pair.variance)
        own = pair.moved - drift
        verdict: Verdict = "same"
        if abs(own) > max(noise, log(1 + least)):
            verdict = "look again" if not sure else "slower" if own > 0 else "faster"
        changes.append(pair.change(drift, noise, verdict))
    return changes


def _look_again(changes: list[Change]) -> list[Change]:
    """Returns ``changes``; a single one that moved, though unchanged, is to be looked at again."""
    moved = [change for change in changes if change.verdict in ("slower", "faster")]
    if len(moved) == 1 and moved[0].why is None:
        return [replace(c, verdict="look again") if c is moved[0] else c for c in changes]
    return changes


def _why(old: Row, new: Row, before: Sweep, after: Sweep) -> str | None:
    """Returns the difference between two rows of a candidate besides their latency, or None.

    Torch runs the network's source, whatever the weights: another artifact of as many MACs and
    parameters is the same work to it.
    """
    assert old.runtime is not None, "a measured row has a runtime"
    name = RUNTIMES.find(old.runtime).library
    versions = [sweep.machine.versions.get(name) for sweep in (before, after)]
    if versions[0] != versions[1]:
        return f"{name} {versions[0] or 'absent'}, then {versions[1] or 'absent'}"
    alike = (old.macs, old.parameters) == (new.macs, new.parameters)
    if old.sha256 == new.sha256 or (name == "torch" and alike):
        return None
    return _ARTIFACT


def _is_new(change: Change) -> bool:
    return change.before.latency != change.after.latency


def _place(sweep: Sweep) -> str:
    machine = sweep.machine
    return f"{machine.cpu}, {machine.cores} cores, {machine.gpu or 'no GPU'}"


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
    with progress_bars() as bar, ExitStack() as stack:
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
        tick = bar("Measuring again", len(calls) * (plan.rounds + 1))
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
    """Returns ``row`` without its latency and a call of its artifact, or why there is none.

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
    """Returns a 99 % interval of the true median of the turns.

    From the order of the turns alone, whatever their distribution; of fewer than eight turns the
    least and the greatest, which are wrong more often.
    Source: the sign test's interval, Conover, "Practical nonparametric statistics", section 3.2.
    """
    from scipy.stats import binom

    ordered = sorted(ratios)
    dropped = max(int(binom.ppf(SURE / 2, len(ordered), 0.5)) - 1, 0)  # at each end
    return ordered[dropped], ordered[-1 - dropped]
