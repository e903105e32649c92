from __future__ import annotations

import gc
from collections.abc import Callable

import numpy as np
import pytest

from bench.timing import Latency, Plan, measure, overlap, warm_up
from models.errors import UserError


class Clock:
    """A clock that moves only when a call takes time."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleeper(self, *seconds: float) -> Callable[[], None]:
        """A call that takes each of ``seconds`` in turn, and the last for ever."""
        left = list(seconds)

        def call() -> None:
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


def test_known_duration_is_what_is_measured() -> None:
    clock = Clock()
    calls = {"slow": clock.sleeper(0.02), "fast": clock.sleeper(0.005)}
    found = measure(calls, Plan(count=50, seconds=0.5, rounds=5), clock=clock)
    assert found["slow"].samples == pytest.approx([0.02] * 50)
    assert found["fast"].p50 == pytest.approx(0.005)
    assert found["fast"].count == 100  # 0.5 s are more than 50 samples here
    assert found["fast"].variation == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("count", "seconds"), [(7, 0.0), (1, 0.31), (30, 0.1)])
def test_both_minima_hold(count: int, seconds: float) -> None:
    clock = Clock()
    plan = Plan(count=count, seconds=seconds, rounds=5)
    latency = measure({"a": clock.sleeper(0.01)}, plan, clock=clock)["a"]
    assert latency.count >= count
    assert sum(latency.samples) >= seconds - 1e-9
    assert len(latency.turns) == 5


def test_rounds_are_interleaved_in_seeded_random_order() -> None:
    clock = Clock()

    def order(seed: int) -> list[str]:
        calls: list[str] = []

        def recorder(name: str) -> Callable[[], None]:
            sleep = clock.sleeper(0.01)
            return lambda: (calls.append(name), sleep())[1]

        candidates = {name: recorder(name) for name in "abcd"}
        warm_calls = 4 * 10
        measure(candidates, Plan(count=8, seconds=0, rounds=8, seed=seed), clock=clock)
        timed = calls[warm_calls:]
        assert len(timed) == 8 * 4 * 3  # two untimed calls and a timed one in each turn
        return timed[::3]

    first = order(seed=1)
    rounds = [first[start : start + 4] for start in range(0, 32, 4)]
    assert all(sorted(names) == list("abcd") for names in rounds)
    assert len({tuple(names) for names in rounds}) > 1
    assert order(seed=1) == first
    assert order(seed=2) != first


def test_warm_up_ends_when_calls_stop_getting_faster() -> None:
    clock = Clock()
    assert warm_up(clock.sleeper(0.01), clock=clock) == 10
    falling = [0.010] * 5 + [0.008] * 5 + [0.006] * 5 + [0.006]
    assert warm_up(clock.sleeper(*falling), clock=clock) == 20


def test_warm_up_gives_up_after_a_second() -> None:
    clock = Clock()
    for_ever = [0.5**power for power in range(200)]
    assert warm_up(clock.sleeper(*for_ever), clock=clock) == 5


def test_warm_up_calls_are_in_no_sample() -> None:
    clock = Clock()
    call = clock.sleeper(*[5.0] * 5, 0.001)
    latency = measure({"a": call}, Plan(count=10, seconds=0, rounds=5), clock=clock)["a"]
    assert max(latency.samples) == pytest.approx(0.001)
    assert latency.warmup == 5


def test_percentiles_are_numpys() -> None:
    samples = np.random.default_rng(0).gamma(2.0, 0.001, 500)
    latency = Latency(turns=tuple(tuple(part) for part in samples.reshape(10, 50)), warmup=0)
    assert (latency.p50, latency.p95, latency.p99) == tuple(np.percentile(samples, [50, 95, 99]))
    assert latency.count == 500
    assert latency.variation == pytest.approx(samples.std() / samples.mean())
    low, high = latency.interval
    assert low < latency.p50 < high
    assert latency.interval == (low, high)


def test_interval_is_wide_where_turns_differ() -> None:
    rng = np.random.default_rng(0)
    alike = rng.normal(1.0, 0.1, (10, 50))
    moody = alike + np.linspace(-0.5, 0.5, 10)[:, None]

    def width(samples: np.ndarray) -> float:
        low, high = Latency(turns=tuple(map(tuple, samples)), warmup=0).interval
        return high - low

    assert width(moody) > 5 * width(alike)


def test_interval_covers_the_true_median_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        samples = rng.normal(1.0, 0.1, (12, 1)) + rng.normal(0.0, 0.05, (12, 20))
        low, high = Latency(turns=tuple(map(tuple, samples)), warmup=0).interval
        hits += low <= 1.0 <= high
    assert hits >= 0.85 * 200  # 95 % in the limit of many turns


def test_overlap_is_a_tie() -> None:
    def steady(seconds: float) -> Latency:
        return Latency(turns=((seconds,) * 5,) * 5, warmup=0)

    wide = Latency(turns=tuple((s,) * 5 for s in (0.8, 0.9, 1.0, 1.1, 1.2)), warmup=0)
    assert overlap(wide, steady(1.1))
    assert overlap(steady(1.1), wide)
    assert not overlap(wide, steady(1.5))


def test_no_collection_runs_during_a_turn_and_the_setting_returns() -> None:
    clock = Clock()
    sleep = clock.sleeper(0.01)
    seen: list[bool] = []
    measure(
        {"a": lambda: (seen.append(gc.isenabled()), sleep())[1]},
        Plan(count=5, seconds=0, rounds=5),
        clock=clock,
    )
    assert seen[-1] is False
    assert gc.isenabled()


def test_a_plan_that_proves_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="rounds at least 5"):
        Plan(rounds=1)
