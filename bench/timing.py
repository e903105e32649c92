"""How long a call takes: all raw samples, several candidates by turns. No torch here.

Why by turns: a shared machine is slow for seconds at a time. Measured one after the other, two
equal candidates differ by whatever the machine did meanwhile; measured in short turns, in a new
random order each round, both meet the same weather.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np

from models.errors import UserError

Clock = Callable[[], float]
Call = Callable[[], object]
K = TypeVar("K", bound=Hashable)

RESAMPLES = 1000
MIN_ROUNDS = 5  # the interval is drawn from turns: fewer say nothing about how turns differ
_WINDOW = 5  # calls per window of the warm-up rule
_STEADY = 0.95
_WARMUP_SECONDS = 1.0
_REWARM = 2  # untimed calls at the start of a turn: the others have had the caches meanwhile


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How much to measure; both minima hold for every candidate.

    Attributes:
        count: least number of samples.
        seconds: least sum of samples.
        rounds: number of turns each candidate gets.
        seed: decides the order of the turns.
    """

    count: int = 100
    seconds: float = 1.0
    rounds: int = 12
    seed: int = 0

    def __post_init__(self) -> None:
        if self.count < 1 or self.rounds < MIN_ROUNDS or self.seconds < 0:
            raise UserError(
                f"count is {self.count}, rounds {self.rounds}, seconds {self.seconds}: count must "
                f"be at least 1, rounds at least {MIN_ROUNDS}, seconds at least 0"
            )


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Seconds per call, every sample kept, in the turns they were taken in.

    Attributes:
        turns: for each round, the samples of this candidate's turn, in order.
        warmup: number of untimed calls before the first round.
    """

    turns: tuple[tuple[float, ...], ...]
    warmup: int

    @cached_property
    def samples(self) -> tuple[float, ...]:
        """Returns all samples, in the order they were taken."""
        return tuple(sample for turn in self.turns for sample in turn)

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

        Whole turns are drawn, not samples: samples of one turn share the machine's mood, and to
        take them for independent would make the interval far too narrow.
        Source: cluster bootstrap, Davison and Hinkley 1997, section 3.8.
        """
        samples = np.array(self.samples)
        order = np.argsort(samples)
        turn_of = np.repeat(np.arange(len(self.turns)), [len(turn) for turn in self.turns])[order]
        draws = np.random.default_rng(0).multinomial(
            len(self.turns), np.full(len(self.turns), 1 / len(self.turns)), size=RESAMPLES
        )
        # A drawn turn's samples weigh as often as it was drawn: the median is where half the
        # weight has been passed, walking up the sorted samples.
        passed = draws[:, turn_of].cumsum(axis=1)
        medians = samples[order][(2 * passed >= passed[:, -1:]).argmax(axis=1)]
        low, high = np.percentile(medians, [2.5, 97.5])
        return float(low), float(high)


def overlap(a: Latency, b: Latency) -> bool:
    """Returns whether the confidence intervals of both medians overlap: a tie."""
    (a_low, a_high), (b_low, b_high) = a.interval, b.interval
    return a_low <= b_high and b_low <= a_high


def measure(
    candidates: Mapping[K, Call],
    plan: Plan,
    *,
    clock: Clock = time.perf_counter,
    tick: Callable[[], object] = lambda: None,
) -> dict[K, Latency]:
    """Returns the latency of every candidate, measured by turns in rounds of random order.

    First each is warmed up (:func:`warm_up`). Then, in each round, each has one turn: two untimed
    calls, then timed ones until the turn has its share of ``plan.count`` and ``plan.seconds``.
    A call must return only when its work is done.

    Args:
        candidates: what to time, by any name.
        plan: how much.
        clock: seconds, monotonic.
        tick: called after each warm-up and each turn: ``len(candidates) * (rounds + 1)`` times.
    """
    warmups: dict[K, int] = {}
    for name, call in candidates.items():
        warmups[name] = warm_up(call, clock=clock)
        tick()
    turns: dict[K, list[tuple[float, ...]]] = {name: [] for name in candidates}
    names = list(candidates)
    rng = np.random.default_rng(plan.seed)
    count, seconds = -(-plan.count // plan.rounds), plan.seconds / plan.rounds
    for _ in range(plan.rounds):
        for index in rng.permutation(len(names)):
            name = names[index]
            turns[name].append(_turn(candidates[name], count, seconds, clock))
            tick()
    return {name: Latency(turns=tuple(turns[name]), warmup=warmups[name]) for name in candidates}


def warm_up(call: Call, *, clock: Clock = time.perf_counter) -> int:
    """Returns after how many untimed calls ``call`` was steady.

    Steady: the median of the last five calls is no longer 5 % below that of the five before.
    After one second it is taken as it is: what still varies then is seen in the samples.
    """
    calls, start = 0, clock()
    previous = float("inf")
    while True:
        median = float(np.median([_time(call, clock) for _ in range(_WINDOW)]))
        calls += _WINDOW
        if median >= _STEADY * previous or clock() - start >= _WARMUP_SECONDS:
            return calls
        previous = median


def _turn(call: Call, count: int, seconds: float, clock: Clock) -> tuple[float, ...]:
    for _ in range(_REWARM):
        call()
    samples: list[float] = []
    total = 0.0
    collecting = gc.isenabled()
    gc.disable()  # a collection would be charged to whichever call it happens to fall into
    try:
        while len(samples) < count or total < seconds:
            sample = _time(call, clock)
            samples.append(sample)
            total += sample
    finally:
        if collecting:
            gc.enable()
    return tuple(samples)


def _time(call: Call, clock: Clock) -> float:
    start = clock()
    call()
    return round(clock() - start, 9)  # the clock counts nanoseconds: the rest is noise in a file
