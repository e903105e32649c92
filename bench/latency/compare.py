"""Compares two sweeps: which candidates became significantly faster or slower.

The speed of a machine varies between runs: on a busy machine, all latencies of two runs of the same
artifacts differed by factors of 0.42 to 1.77. Unchanged candidates therefore serve as controls.
Their median ratio estimates the drift of the machine, and their deviations from it estimate the
variation between runs, which a confidence interval within one run does not include. When both
versions are measured again, interleaved in one run, drift affects both alike.

The variance is estimated from few controls by a moderated t-test, which combines them with a prior:
Smyth, "Linear models and empirical Bayes methods", 2004.
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
from bench.latency.record import Row, Sweep, latency, times
from bench.measure.spread import Spread
from bench.measure.timing import Call, Latency, Plan, Timed, decisive, measure, turn_ratios
from core.conditions import now
from core.errors import UserError

Verdict = Literal["slower", "faster", "look again", "same"]
ALARMS = 0.02  # false positive rate of a comparison of two runs, over all its candidates
FEWEST = 2  # controls that are needed to estimate the drift of the machine
# Prior of a candidate's deviation from the drift between two runs on an idle machine: standard
# deviation of the log ratio, and the number of controls that the prior counts as.
_SPREAD, _KNOWN = 0.06, 4
_ARTIFACT = "artifact differs"
_NORMAL = 1.96  # half the width of a 95 % interval in standard errors
Side = Literal["before", "after"]
SURE = 0.01  # significance level of a verdict when both versions are measured again


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One candidate in two sweeps.

    Attributes:
        before: row in the first sweep.
        after: row in the second sweep.
        ratio: p50 after over p50 before, as measured: of CPU time where both rows have it.
        drift: part of ``ratio`` that is due to the machine: the median ratio of the controls.
        noise: largest factor, besides the drift, that is still explained by chance.
        why: what differs, such as the artifact; None if nothing does.
        verdict: ``look again`` if a significant change cannot be attributed to the candidate: it
            is unchanged and the only one that moved, or there are too few controls.
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
        """Returns the ratio without the drift; above 1 is slower."""
        return self.ratio / self.drift

    @property
    def by_cpu_time(self) -> bool:
        """Returns whether its ratio is one of CPU time."""
        return all(latency(row).cpu_time for row in (self.before, self.after))

    @property
    def repeatable(self) -> bool:
        """Returns whether one process can run both versions; not with two library versions."""
        return self.why in (None, _ARTIFACT)


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The comparison of two sweeps.

    Attributes:
        changes: all candidates measured in both sweeps, the largest slowdown first.
        reused: how many of them the second sweep reused from the first without measuring.
        lost: candidates measured only in the first sweep.
        new: candidates measured only in the second sweep.
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
        """Returns the unchanged candidates that were measured in both sweeps."""
        return [change for change in self.changes if change.why is None and _is_new(change)]


def compare(before: Sweep, after: Sweep, *, least: float = 0.05) -> Comparison:
    """Compares two sweeps of the same machine; library versions may differ.

    Args:
        before: first sweep.
        after: second sweep.
        least: differences below this fraction are ignored.

    Raises:
        UserError: different processors, or no candidate in common.
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
        if not pair.reused:  # drift is common only to rows of the same two runs
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
    """One candidate in two sweeps.

    Attributes:
        before: row in the first sweep.
        after: row in the second sweep.
        why: what differs; None if nothing does.
        moved: natural logarithm of the ratio of p50, after over before; of CPU time where both
            rows have it.
        variance: variance of ``moved`` within the runs.
    """

    before: Row
    after: Row
    why: str | None
    moved: float
    variance: float

    @classmethod
    def of(cls, before: Row, after: Row, why: str | None) -> _Pair:
        times = decisive((latency(after), latency(before)))
        moved = log(times[0].p50 / times[1].p50)
        return cls(before, after, why, moved, sum(map(_variance, times)))

    @property
    def reused(self) -> bool:
        """Returns whether the second sweep reused the measurement of the first."""
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
    """Returns the variance of the natural logarithm of p50 within a run."""
    low, high = taken.interval
    return (log(high / low) / 2 / _NORMAL) ** 2


def _judge(pairs: Sequence[_Pair], tests: int, least: float) -> list[Change]:
    """Returns the verdict on each of ``pairs``, which must be of the same two runs.

    The controls of a pair are the other unchanged pairs. If there are fewer than two, all other
    pairs are used instead, and the verdict is ``look again`` at most.
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
        if len(chosen) > FEWEST:  # drop an outlier, which would inflate the variance
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
    """Returns ``changes``; if only one is significant and unchanged, it becomes ``look again``."""
    moved = [change for change in changes if change.verdict in ("slower", "faster")]
    if len(moved) == 1 and moved[0].why is None:
        return [replace(c, verdict="look again") if c is moved[0] else c for c in changes]
    return changes


def _why(old: Row, new: Row, before: Sweep, after: Sweep) -> str | None:
    """Returns what differs between two rows of a candidate besides their latency, or None.

    Torch runs the network's source code, so for it two artifacts with the same numbers of MACs and
    parameters do not differ.
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
    """A change that was measured again.

    Attributes:
        change: the change between the two runs.
        times: latency after over latency before, turn by turn; a text says why it is unknown.
        verdict: verdict from the turns; without them that of ``change``.
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
    """Measures both versions of each of ``changes`` again, interleaved, and returns the results.

    Args:
        changes: changes to measure again.
        before: folder of all artifacts of the first sweep; may lack some.
        after: folder of all artifacts of the second sweep.
        plan: number of samples and rounds.
        least: differences below this fraction are ignored.

    Raises:
        UserError: for no candidate are both versions of the artifact available.
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
        alone = {key for key in calls if isinstance(one := taken[key], Row) and one.one_thread}
        for key, found in measure(calls, plan, one_thread=alone, tick=tick).items():
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
    """Returns ``row`` without its latency, and a call that runs its artifact.

    Without the artifact, returns the reason and None. ``stack`` closes what is opened.
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
    """Returns whether ``root`` has the artifact of ``row``, with the same digest."""
    try:
        artifact = Artifact.load(root / row.folder)
    except UserError:  # missing or damaged
        return False
    return artifact.sha256s[artifact.spec.model_file] == row.sha256


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
    """Returns a 99 % confidence interval of the median ratio of the turns.

    It is the distribution-free interval of the sign test. With fewer than eight turns it is the
    minimum and maximum, with a lower confidence.
    Source: Conover, "Practical nonparametric statistics", section 3.2.
    """
    from scipy.stats import binom

    ordered = sorted(ratios)
    dropped = max(int(binom.ppf(SURE / 2, len(ordered), 0.5)) - 1, 0)  # at each end
    return ordered[dropped], ordered[-1 - dropped]
