"""Times several candidates, interleaved, and keeps all raw samples.

A shared machine can be slow for seconds at a time. Measured one after the other, two equal
candidates would differ by the load at that time. In short turns, in a new random order in each
round, all see the same background load.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Protocol, TypeVar, runtime_checkable

import numpy as np
from pydantic import AfterValidator

from core.errors import UserError

Clock = Callable[[], float]


@runtime_checkable
class Timed(Protocol):
    """A call that measures its own time, such as with CUDA events, instead of by wall clock."""

    def elapse(self) -> float:
        """Runs once to its end and returns the seconds it took."""


Call = Callable[[], object]
K = TypeVar("K", bound=Hashable)

RESAMPLES = 1000
MIN_ROUNDS = 5  # the bootstrap resamples turns, so a few are needed
_WINDOW = 5  # calls per window of the warm-up criterion
_STEADY = 0.95
_WARMUP_SECONDS = 0.5
# Untimed calls at the start of a turn, as the other candidates have evicted the caches. A call of
# 0.1 s needs none, as filling the caches takes about 1 % of that.
_REWARM, _REWARM_SECONDS = 2, 0.1
_ONE_THREAD = (
    1.05  # most CPU time that one thread takes, over its wall time: clocks differ a little
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How much to measure of each candidate.

    Attributes:
        count: least number of samples.
        seconds: least total time of the samples.
        limit: total time of the samples, in seconds, at which a candidate stops, even with fewer
            samples than ``count``: a slow one skips rounds, and has at least five samples.
        rounds: number of turns of each candidate.
        extra: most further rounds of candidates that are undecided, each with a turn as before.
        seed: random seed of the order of the turns.
    """

    count: int = 100
    seconds: float = 3.0
    limit: float = 3.0
    rounds: int = 12
    extra: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if (
            self.count < 1
            or self.rounds < MIN_ROUNDS
            or self.extra < 0
            or not 0 <= self.seconds <= self.limit
        ):
            raise UserError(
                f"count is {self.count}, rounds {self.rounds}, extra {self.extra}, seconds "
                f"{self.seconds:g}, limit {self.limit:g}: count must be at least 1, rounds at "
                f"least {MIN_ROUNDS}, extra at least 0, seconds at least 0 and at most the limit"
            )

    @property
    def warmup_seconds(self) -> float:
        """Returns the time limit of a warm-up in seconds, at most ``limit``."""
        return min(_WARMUP_SECONDS, self.limit)


def _counted(turns: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    """Validates the CPU times of a record: none negative or infinite."""
    if not all(0 <= sample < float("inf") for turn in turns for sample in turn):
        raise ValueError("CPU times are at least 0 s")
    return turns


def _sound(turns: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    """Validates the samples of a record: at least one, all positive and finite."""
    samples = [sample for turn in turns for sample in turn]
    if not samples or not all(0 < sample < float("inf") for sample in samples):
        raise ValueError("a latency holds samples above 0 s, and at least one")
    return turns


@dataclass(frozen=True, kw_only=True)
class Latency:
    """All samples of the latency of a candidate, in seconds per call.

    Attributes:
        turns: for each round, the samples of the candidate's turn, in order; empty if it skipped
            the round.
        warmup: number of untimed calls before the first round.
        cpu: CPU time of the process in each sample of ``turns``, in seconds, where one thread
            computes: what other programs do on the machine hardly shows in it. Else empty.
    """

    turns: Annotated[tuple[tuple[float, ...], ...], AfterValidator(_sound)]
    warmup: int
    cpu: Annotated[tuple[tuple[float, ...], ...], AfterValidator(_counted)] = ()

    def __post_init__(self) -> None:
        if self.cpu and [len(turn) for turn in self.cpu] != [len(turn) for turn in self.turns]:
            raise ValueError("CPU times are those of the samples, turn by turn")

    @cached_property
    def cpu_time(self) -> Latency | None:
        """Returns the CPU times as a latency of their own.

        None if there are none, or if they exceed the samples, as more than one thread did the work.
        """
        if not self.cpu or not all(sample > 0 for turn in self.cpu for sample in turn):
            return None
        found = Latency(turns=self.cpu, warmup=self.warmup)
        return found if found.p50 <= _ONE_THREAD * self.p50 else None

    @cached_property
    def samples(self) -> tuple[float, ...]:
        """Returns all samples in chronological order."""
        return tuple(sample for turn in self.turns for sample in turn)

    @cached_property
    def seconds(self) -> float:
        """Returns the sum of the samples."""
        return sum(self.samples)

    @property
    def count(self) -> int:
        """Returns the number of samples."""
        return sum(len(turn) for turn in self.turns)

    def percentile(self, percent: float) -> float:
        """Returns the given percentile of the samples, in seconds."""
        return float(np.percentile(self.samples, percent))

    @cached_property
    def p50(self) -> float:
        """Returns the median, in seconds."""
        return self.percentile(50)

    @property
    def p95(self) -> float:
        """Returns the 95th percentile, in seconds."""
        return self.percentile(95)

    @property
    def p99(self) -> float:
        """Returns the 99th percentile, in seconds."""
        return self.percentile(99)

    @property
    def variation(self) -> float:
        """Returns the coefficient of variation: standard deviation over mean."""
        return float(np.std(self.samples) / np.mean(self.samples))

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Returns the 95 % bootstrap confidence interval of p50, (low, high) in seconds.

        Turns are resampled, not samples: the samples of a turn share the machine's load, so they
        are not independent, and resampling them would make the interval far too narrow.
        Source: cluster bootstrap, Davison and Hinkley 1997, section 3.8.
        """
        samples = np.array(self.samples)
        order = np.argsort(samples)
        sizes = [len(turn) for turn in self.turns if turn]
        count = len(sizes)
        turn_of = np.repeat(np.arange(count), sizes)[order]
        draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
        # Weighted median: the weight of a sample is how often its turn was drawn. It is the sorted
        # sample at which the cumulative weight passes half; if it is exactly half there, the mean
        # of this sample and the next, as in p50.
        passed = draws.astype(np.int32)[:, turn_of].cumsum(axis=1, dtype=np.int32)
        lower = (2 * passed >= passed[:, -1:]).argmax(axis=1)
        upper = (2 * passed > passed[:, -1:]).argmax(axis=1)
        medians = (samples[order][lower] + samples[order][upper]) / 2
        low, high = np.percentile(medians, [2.5, 97.5])
        return float(low), float(high)


def is_complete(latency: Latency, plan: Plan) -> bool:
    """Returns whether ``latency`` has at least the samples that ``plan`` asks for."""
    enough = latency.count >= plan.count or latency.seconds >= 0.75 * plan.limit
    return len(latency.turns) >= plan.rounds and latency.seconds >= 0.99 * plan.seconds and enough


def decisive(latencies: Iterable[Latency]) -> list[Latency]:
    """Returns what decides which of ``latencies`` is the shortest.

    That is their CPU time, if all of them have it: the time that a machine takes from a program is
    no property of the program. Else it is their wall time.
    """
    found = list(latencies)
    times = [time for latency in found if (time := latency.cpu_time)]
    return times if len(times) == len(found) else found


def turn_ratios(over: Latency, under: Latency) -> list[float]:
    """Returns the median of ``over`` divided by that of ``under``, for each round with both.

    They are of CPU time where :func:`decisive` is, and meaningful only if both were measured in the
    same run, interleaved.
    """
    over, under = decisive((over, under))
    pairs = zip(over.turns, under.turns, strict=False)
    return [float(np.median(a) / np.median(b)) for a, b in pairs if a and b]


def is_faster(a: Latency, b: Latency) -> bool:
    """Returns whether the confidence interval of the median of ``a`` is below that of ``b``.

    They are of CPU time where :func:`decisive` is.
    """
    a, b = decisive((a, b))
    return a.interval[1] < b.interval[0]


def overlap(a: Latency, b: Latency) -> bool:
    """Returns whether neither :func:`is_faster` than the other, which counts as a tie."""
    return not is_faster(a, b) and not is_faster(b, a)


def measure(
    candidates: Mapping[K, Call | Timed],
    plan: Plan,
    *,
    begun: Mapping[K, Latency] | None = None,
    one_thread: Collection[K] = (),
    clock: Clock = time.perf_counter,
    cpu_clock: Clock = time.process_time,
    tick: Callable[[], object] = lambda: None,
    save: Callable[[dict[K, Latency]], object] = lambda _: None,
    undecided: Callable[[dict[K, Latency]], Collection[K]] = lambda _: (),
) -> dict[K, Latency]:
    """Measures the latency of every candidate, interleaved in rounds of random order.

    Each candidate is warmed up first (:func:`warm_up`). In each round it then has one turn: up to
    two untimed calls, then timed ones until the turn has its share of ``plan.count`` and
    ``plan.seconds``, or of ``plan.limit``. A call must not return before its work has finished.

    Args:
        candidates: name to call; a :class:`Timed` one measures its own time.
        plan: number of samples and rounds.
        begun: latencies of an interrupted run with the same plan, whose rounds are not repeated.
        one_thread: names of calls that compute in this process with one thread: their CPU time is
            kept, too.
        clock: a monotonic clock, in seconds.
        cpu_clock: a clock of the process's CPU time, in seconds.
        tick: called after each warm-up and each turn: ``len(candidates) * (rounds + 1)`` times.
        save: called after each round with the latencies so far.
        undecided: returns the names that need further rounds, such as those that tie, given the
            latencies so far; asked after each round from the last of ``plan.rounds`` on.
    """
    warm = {}
    for name, call in candidates.items():
        warm[name] = warm_up(call, clock=clock, limit=plan.warmup_seconds)
        tick()
    found = dict(begun or {})
    turns = {name: list(found[name].turns) if name in found else [] for name in candidates}
    cpu = {
        name: list(found[name].cpu) if name in found else []
        for name in one_thread
        if name not in found or found[name].cpu
    }
    still: Collection[K] = candidates
    for number, names in enumerate(shuffled(list(candidates), plan)):
        if number >= plan.rounds and not (still := undecided(found)):
            break
        for name in names:
            if len(turns[name]) <= number:
                samples: list[_Sample] = []
                if name in still and not _sits_out(turns[name], plan):
                    clocks = (clock, cpu_clock) if name in cpu else (clock, None)
                    samples = _turn(candidates[name], plan, warm[name].seconds, *clocks)
                turns[name].append(tuple(wall for wall, _ in samples))
                if name in cpu:
                    cpu[name].append(tuple(used for _, used in samples))
            if number < plan.rounds:
                tick()
        found = {
            n: Latency(turns=tuple(turns[n]), warmup=warm[n].calls, cpu=tuple(cpu.get(n, ())))
            for n in candidates
        }
        save(found)
    return found


def shuffled(names: Sequence[K], plan: Plan) -> Iterator[list[K]]:
    """Yields ``names`` in a new random order for each round of ``plan``, the extra ones too."""
    rng = np.random.default_rng(plan.seed)
    for _ in range(plan.rounds + plan.extra):
        yield [names[index] for index in rng.permutation(len(names))]


@dataclass(frozen=True, slots=True)
class Warmth:
    """The outcome of a warm-up: its number of calls, and the median seconds of the last ones."""

    calls: int
    seconds: float


def warm_up(
    call: Call | Timed, *, clock: Clock = time.perf_counter, limit: float = _WARMUP_SECONDS
) -> Warmth:
    """Calls ``call`` until its time is steady, for at most ``limit`` seconds.

    Steady means that the median of the last five calls is at least 95 % of that of the five before.
    Variation that remains after ``limit`` shows in the samples.
    """
    calls, start = 0, clock()
    previous = float("inf")
    while True:
        window: list[float] = []
        while len(window) < _WINDOW and clock() - start < limit:
            window.append(_time(call, clock))
        calls += len(window)
        median = float(np.median(window)) if window else previous
        if median >= _STEADY * previous or clock() - start >= limit:
            return Warmth(calls, median)
        previous = median


def _sits_out(turns: list[tuple[float, ...]], plan: Plan) -> bool:
    """Returns whether a candidate skips a round: its time is used up, and enough turns remain."""
    rounds = len(turns) + 1
    needed = MIN_ROUNDS - sum(map(bool, turns))
    used = sum(map(sum, turns))
    return used >= plan.limit * rounds / plan.rounds and needed <= plan.rounds - rounds


_Sample = tuple[float, float]  # wall and CPU time of a call, in seconds; the latter 0 if not asked


def _turn(
    call: Call | Timed, plan: Plan, expected: float, clock: Clock, cpu_clock: Clock | None
) -> list[_Sample]:
    count, seconds = -(-plan.count // plan.rounds), plan.seconds / plan.rounds
    for _ in range(min(_REWARM, int(_REWARM_SECONDS / expected) if expected else _REWARM)):
        _time(call, clock)
    samples: list[_Sample] = []
    total = 0.0
    collecting = gc.isenabled()
    gc.disable()  # a collection would be added to the time of a random call
    try:
        while not samples or (
            (len(samples) < count or total < seconds) and total < plan.limit / plan.rounds
        ):
            begun = cpu_clock() if cpu_clock else 0.0
            wall = _time(call, clock)
            used = cpu_clock() - begun if cpu_clock else 0.0
            samples.append((wall, round(used, 9)))
            total += wall
    finally:
        if collecting:
            gc.enable()
    return samples


def _time(call: Call | Timed, clock: Clock) -> float:
    if isinstance(call, Timed):
        return round(call.elapse(), 9)
    start = clock()
    call()
    return round(clock() - start, 9)  # the clock has a resolution of 1 ns
