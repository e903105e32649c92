"""Times calls: all raw samples, several candidates interleaved.

Why interleaved: a shared machine is slow for seconds at a time. Measured one after the other, two
equal candidates differ by whatever the machine did meanwhile; measured in short turns, in a new
random order each round, both see the same background load.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Protocol, TypeVar, runtime_checkable

import numpy as np
from pydantic import AfterValidator

from core.errors import UserError

Clock = Callable[[], float]


@runtime_checkable
class Timed(Protocol):
    """Work that times itself, as a GPU does, instead of being timed by the clock here."""

    def elapse(self) -> float:
        """Returns the seconds that one run took, after it has ended."""


Call = Callable[[], object]
K = TypeVar("K", bound=Hashable)

RESAMPLES = 1000
MIN_ROUNDS = 5  # the interval is drawn from turns: fewer say nothing about how turns differ
_WINDOW = 5  # calls per window of the warm-up rule
_STEADY = 0.95
_WARMUP_SECONDS = 0.5
# Untimed calls at the start of a turn: the others have had the caches meanwhile. A call of a
# tenth of a second needs none: to fill the caches takes it a hundredth of that.
_REWARM, _REWARM_SECONDS = 2, 0.1


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How much to measure: both minima hold for every candidate that can do so in ``limit``.

    Attributes:
        count: least number of samples.
        seconds: least sum of samples.
        limit: sum of samples, in seconds, at which a candidate stops though it has too few: one
            that takes a second a call sits rounds out, and has five samples, not a hundred.
        rounds: number of turns each candidate gets.
        seed: decides the order of the turns.
    """

    count: int = 100
    seconds: float = 3.0
    limit: float = 3.0
    rounds: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or self.rounds < MIN_ROUNDS or not 0 <= self.seconds <= self.limit:
            raise UserError(
                f"count is {self.count}, rounds {self.rounds}, seconds {self.seconds:g}, limit "
                f"{self.limit:g}: count must be at least 1, rounds at least {MIN_ROUNDS}, seconds "
                "at least 0 and at most the limit"
            )

    @property
    def warmup_seconds(self) -> float:
        """Returns the seconds after which a warm-up ends: no more than what is to be measured."""
        return min(_WARMUP_SECONDS, self.limit)


def _sound(turns: tuple[tuple[float, ...], ...]) -> tuple[tuple[float, ...], ...]:
    """Returns the samples of a record, unless no call can have taken so long."""
    samples = [sample for turn in turns for sample in turn]
    if not samples or not all(0 < sample < float("inf") for sample in samples):
        raise ValueError("a latency holds samples above 0 s, and at least one")
    return turns


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Seconds per call, every sample kept, in the turns they were taken in.

    Attributes:
        turns: for each round, the samples of this candidate's turn, in order; none where it sat
            the round out.
        warmup: number of untimed calls before the first round.
    """

    turns: Annotated[tuple[tuple[float, ...], ...], AfterValidator(_sound)]
    warmup: int

    @cached_property
    def samples(self) -> tuple[float, ...]:
        """Returns all samples, in the order they were taken."""
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
        """Returns a 95 % bootstrap confidence interval of p50: (low, high) in seconds.

        Whole turns are drawn, not samples: samples of one turn share the machine's load, and to
        take them for independent would make the interval far too narrow.
        Source: cluster bootstrap, Davison and Hinkley 1997, section 3.8.
        """
        samples = np.array(self.samples)
        order = np.argsort(samples)
        sizes = [len(turn) for turn in self.turns if turn]
        count = len(sizes)
        turn_of = np.repeat(np.arange(count), sizes)[order]
        draws = np.random.default_rng(0).multinomial(count, np.full(count, 1 / count), RESAMPLES)
        # A drawn turn's samples weigh as often as it was drawn: the median is where half the
        # weight has been passed, walking up the sorted samples. Where exactly half of it has, it
        # lies midway to the next sample, as p50 does.
        passed = draws.astype(np.int32)[:, turn_of].cumsum(axis=1, dtype=np.int32)
        lower = (2 * passed >= passed[:, -1:]).argmax(axis=1)
        upper = (2 * passed > passed[:, -1:]).argmax(axis=1)
        medians = (samples[order][lower] + samples[order][upper]) / 2
        low, high = np.percentile(medians, [2.5, 97.5])
        return float(low), float(high)


def is_complete(latency: Latency, plan: Plan) -> bool:
    """Returns whether ``latency`` is what ``plan`` asks for, or more."""
    enough = latency.count >= plan.count or latency.seconds >= 0.75 * plan.limit
    return len(latency.turns) >= plan.rounds and latency.seconds >= 0.99 * plan.seconds and enough


def turn_ratios(over: Latency, under: Latency) -> list[float]:
    """Returns the median of ``over`` over that of ``under``, for each round both had a turn in.

    Only where they took these turns beside each other does it tell the two apart, and not what the
    machine did meanwhile.
    """
    pairs = zip(over.turns, under.turns, strict=False)
    return [float(np.median(a) / np.median(b)) for a, b in pairs if a and b]


def overlap(a: Latency, b: Latency) -> bool:
    """Returns whether the confidence intervals of both medians overlap: a tie."""
    (a_low, a_high), (b_low, b_high) = a.interval, b.interval
    return a_low <= b_high and b_low <= a_high


def measure(
    candidates: Mapping[K, Call | Timed],
    plan: Plan,
    *,
    begun: Mapping[K, Latency] | None = None,
    clock: Clock = time.perf_counter,
    tick: Callable[[], object] = lambda: None,
    save: Callable[[dict[K, Latency]], object] = lambda _: None,
) -> dict[K, Latency]:
    """Returns the latency of every candidate, interleaved in rounds of random order.

    First each is warmed up (:func:`warm_up`), for no longer than it is to be measured. Then, in
    each round, each has one turn: two untimed calls, then timed ones until the turn has its share
    of ``plan.count`` and ``plan.seconds``, or of ``plan.limit``. A call must return only when its
    work is done.

    Args:
        candidates: what to time, by any name; a :class:`Timed` one tells its own time.
        plan: how much.
        begun: turns that were taken before, by the same plan: these rounds are not repeated.
        clock: seconds, monotonic.
        tick: called after each warm-up and each turn: ``len(candidates) * (rounds + 1)`` times.
        save: called after each round with what there is by then.
    """
    warm = {}
    for name, call in candidates.items():
        warm[name] = warm_up(call, clock=clock, limit=plan.warmup_seconds)
        tick()
    turns = {
        name: list(begun[name].turns) if begun and name in begun else [] for name in candidates
    }
    names = list(candidates)
    rng = np.random.default_rng(plan.seed)
    found: dict[K, Latency] = {}
    for number in range(plan.rounds):
        for index in rng.permutation(len(names)):
            name = names[index]
            if len(turns[name]) <= number:
                out = _sits_out(turns[name], plan)
                expected = warm[name].seconds
                turns[name].append(() if out else _turn(candidates[name], plan, expected, clock))
            tick()
        found = {n: Latency(turns=tuple(turns[n]), warmup=warm[n].calls) for n in candidates}
        save(found)
    return found


@dataclass(frozen=True, slots=True)
class Warmth:
    """The outcome of a warm-up: its number of calls, and the seconds of a warm one."""

    calls: int
    seconds: float


def warm_up(
    call: Call | Timed, *, clock: Clock = time.perf_counter, limit: float = _WARMUP_SECONDS
) -> Warmth:
    """Returns how many untimed calls ``call`` needed to be steady, and the seconds of one then.

    Steady: the median of the last five calls is no longer 5 % below that of the five before.
    After ``limit`` seconds it is taken as it is: what still varies then is seen in the samples.
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
    """Returns whether a candidate has used up its share of the limit, and has turns to spare."""
    rounds = len(turns) + 1
    needed = MIN_ROUNDS - sum(map(bool, turns))
    used = sum(map(sum, turns))
    return used >= plan.limit * rounds / plan.rounds and needed <= plan.rounds - rounds


def _turn(call: Call | Timed, plan: Plan, expected: float, clock: Clock) -> tuple[float, ...]:
    count, seconds = -(-plan.count // plan.rounds), plan.seconds / plan.rounds
    for _ in range(min(_REWARM, int(_REWARM_SECONDS / expected) if expected else _REWARM)):
        _time(call, clock)
    samples: list[float] = []
    total = 0.0
    collecting = gc.isenabled()
    gc.disable()  # a collection would be charged to whichever call it happens to fall into
    try:
        while not samples or (
            (len(samples) < count or total < seconds) and total < plan.limit / plan.rounds
        ):
            sample = _time(call, clock)
            samples.append(sample)
            total += sample
    finally:
        if collecting:
            gc.enable()
    return tuple(samples)


def _time(call: Call | Timed, clock: Clock) -> float:
    if isinstance(call, Timed):
        return round(call.elapse(), 9)
    start = clock()
    call()
    return round(clock() - start, 9)  # the clock counts nanoseconds: the rest is noise in a file
