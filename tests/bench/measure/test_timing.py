from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import pytest

from bench.measure.timing import (
    MIN_ROUNDS,
    Latency,
    Plan,
    Warmth,
    decisive,
    is_complete,
    is_faster,
    measure,
    overlap,
    turn_ratios,
    warm_up,
)
from core.errors import UserError
from core.record_file import parse


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


def test_what_tells_its_own_time_is_believed() -> None:
    class Gpu:
        def elapse(self) -> float:
            clock.now += 1.0  # the wall clock goes on meanwhile, and is not asked
            return 0.0025

    clock = Clock()
    calls = {"gpu": Gpu(), "cpu": clock.sleeper(0.005)}
    found = measure(calls, Plan(count=10, seconds=0.0, rounds=5), clock=clock)
    assert found["gpu"].samples == (0.0025,) * 10
    assert found["cpu"].samples == pytest.approx([0.005] * 10)


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
    assert warm_up(clock.sleeper(0.01), clock=clock) == Warmth(10, pytest.approx(0.01))
    falling = [0.010] * 5 + [0.008] * 5 + [0.006] * 5 + [0.006]
    assert warm_up(clock.sleeper(*falling), clock=clock) == Warmth(20, pytest.approx(0.006))


def test_warm_up_gives_up_after_half_a_second() -> None:
    clock = Clock()
    for_ever = [0.5**power for power in range(200)]
    assert warm_up(clock.sleeper(*for_ever), clock=clock).calls == 1
    assert warm_up(clock.sleeper(0.3), clock=clock).calls == 2


def test_warm_up_calls_are_in_no_sample() -> None:
    clock = Clock()
    call = clock.sleeper(*[0.3] * 2, 0.001)
    latency = measure({"a": call}, Plan(count=10, seconds=0, rounds=5), clock=clock)["a"]
    assert max(latency.samples) == pytest.approx(0.001)
    assert latency.warmup == 2


def test_a_slow_candidate_sits_rounds_out_and_stays_near_the_limit() -> None:
    clock = Clock()
    plan = Plan(count=100, seconds=3, limit=4, rounds=12)
    calls = {"fast": clock.sleeper(0.01), "slow": clock.sleeper(0.5), "slower": clock.sleeper(1.5)}
    found = measure(calls, plan, clock=clock)
    assert found["fast"].count == 300
    assert all(found["fast"].turns)
    assert found["slow"].seconds == pytest.approx(4.0)
    assert found["slower"].count == MIN_ROUNDS
    for name in ("slow", "slower"):
        taken = [number for number, turn in enumerate(found[name].turns) if turn]
        assert len(taken) >= MIN_ROUNDS
        assert len(found[name].turns) == 12
        assert max(taken) >= 8  # spread over the run, not all at its start
        assert found[name].interval == (found[name].p50, found[name].p50)
    assert all(is_complete(latency, plan) for latency in found.values())


def test_a_run_that_was_cut_off_goes_on_where_it_was() -> None:
    plan = Plan(count=12, seconds=0, rounds=6)

    def run(**options: Any) -> tuple[dict[str, Latency], list[dict[str, Latency]]]:
        clock, saved = Clock(), list[dict[str, Latency]]()
        calls = {name: clock.sleeper(0.01) for name in "ab"}
        return measure(calls, plan, clock=clock, save=saved.append, **options), saved

    whole, saved = run()
    assert [len(latency["a"].turns) for latency in saved] == [1, 2, 3, 4, 5, 6]
    assert not any(is_complete(latency["a"], plan) for latency in saved[:-1])
    marked = {
        name: Latency(turns=((0.09, 0.09),) * 4, warmup=latency.warmup)
        for name, latency in saved[3].items()
    }
    resumed, rest = run(begun=marked)
    assert resumed["a"].turns[:4] == ((0.09, 0.09),) * 4
    assert resumed["b"].turns[4:] == whole["b"].turns[4:]
    assert len(rest) == 6


def test_more_than_was_asked_is_complete_and_less_is_not() -> None:
    latency = Latency(turns=((0.01,) * 10,) * 12, warmup=10)
    assert is_complete(latency, Plan(count=100, seconds=1))
    assert is_complete(latency, Plan(count=30, seconds=0.2, rounds=6))
    assert not is_complete(latency, Plan(count=100, seconds=3))
    assert not is_complete(latency, Plan(count=200, seconds=1))
    assert not is_complete(latency, Plan(count=100, seconds=1, rounds=20))


def test_the_real_clock_sees_at_least_the_time_that_passed() -> None:
    def call() -> None:
        end = time.perf_counter() + 0.004
        while time.perf_counter() < end:
            pass

    latency = measure({"a": call}, Plan(count=20, seconds=0, rounds=5))["a"]
    assert min(latency.samples) >= 0.004


def test_a_call_that_does_not_wait_looks_too_fast() -> None:
    """What the timer cannot see, so that the sweep must refuse it (test_sweep)."""
    with ThreadPoolExecutor(1) as pool:
        work = partial(time.sleep, 0.01)
        calls = {"waits": lambda: pool.submit(work).result(), "does not": lambda: pool.submit(work)}
        found = measure({"waits": calls["waits"]}, Plan(count=5, seconds=0, rounds=5))
        hasty = measure({"does not": calls["does not"]}, Plan(count=5, seconds=0, rounds=5))
    assert min(found["waits"].samples) >= 0.01
    assert hasty["does not"].p50 < min(found["waits"].samples)


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


def test_interval_holds_the_median_between_two_ways_to_run() -> None:
    # Half of each turn is fast: p50 lies midway between the two, where no sample is.
    latency = Latency(turns=((1.0, 1.0, 3.0, 3.0),) * 6, warmup=0)
    assert latency.p50 == 2.0
    assert latency.interval == (2.0, 2.0)


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


def test_cpu_time_is_kept_of_what_computes_with_one_thread() -> None:
    clock, cpu = Clock(), Clock()

    def call() -> None:
        clock.now += 0.005  # of which another program had three fifths
        cpu.now += 0.002

    calls = {"one": call, "two": clock.sleeper(0.005)}
    plan = Plan(count=10, seconds=0, rounds=5)
    saved: list[dict[str, Latency]] = []
    found = measure(calls, plan, one_thread=["one"], clock=clock, cpu_clock=cpu, save=saved.append)
    used = found["one"].cpu_time
    assert used is not None
    assert used.samples == pytest.approx([0.002] * found["one"].count)
    assert found["one"].p50 == pytest.approx(0.005)
    assert found["two"].cpu == ()
    assert found["two"].cpu_time is None
    # A run goes on with the CPU times that it kept, and without any where it kept none.
    begun = {"one": saved[2]["one"], "two": saved[2]["two"]}
    more = measure(calls, plan, begun=begun, one_thread=calls, clock=clock, cpu_clock=cpu)
    assert [len(turn) for turn in more["one"].cpu] == [len(turn) for turn in more["one"].turns]
    assert more["two"].cpu == ()


def test_what_is_undecided_takes_more_rounds() -> None:
    clock = Clock()
    calls = {name: clock.sleeper(0.01) for name in ("a", "b", "c")}
    asked: list[int] = []

    def undecided(found: dict[str, Latency]) -> list[str]:
        asked.append(len(found["a"].turns))
        return ["a", "c"] if len(asked) < 3 else []

    plan = Plan(count=10, seconds=0, rounds=5, extra=4)
    ticks: list[None] = []
    found = measure(calls, plan, clock=clock, undecided=undecided, tick=lambda: ticks.append(None))
    assert asked == [5, 6, 7]
    assert {name: len(found[name].turns) for name in calls} == dict.fromkeys(calls, 7)
    assert {name: sum(map(bool, found[name].turns)) for name in calls} == {"a": 7, "b": 5, "c": 7}
    assert len(ticks) == len(calls) * (plan.rounds + 1)
    always = measure(calls, plan, clock=clock, undecided=lambda found: calls)
    assert [len(latency.turns) for latency in always.values()] == [9, 9, 9]


def waiting(seconds: float, *, cpu: float, turns: int = 6) -> Latency:
    """A latency of which each second turn had to wait for half its time."""
    wall = tuple((seconds * (1 + turn % 2),) * 5 for turn in range(turns))
    return Latency(turns=wall, warmup=0, cpu=((cpu,) * 5,) * turns)


def test_cpu_time_decides_where_both_have_it() -> None:
    fast, slow = waiting(0.010, cpu=0.0090), waiting(0.009, cpu=0.0095)
    assert is_faster(fast, slow)
    assert not is_faster(slow, fast)
    assert not overlap(fast, slow)
    assert turn_ratios(slow, fast) == pytest.approx([0.95 / 0.9] * 6)
    by_wall = dataclasses.replace(slow, cpu=())
    assert overlap(fast, by_wall)
    assert turn_ratios(by_wall, fast) == pytest.approx([0.9] * 6)


def test_cpu_time_of_several_threads_decides_nothing() -> None:
    two = waiting(0.010, cpu=0.030)
    assert two.cpu_time is None
    assert decisive([two, waiting(0.010, cpu=0.009)])[0] is two


def test_cpu_times_that_are_not_of_the_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="turn by turn"):
        Latency(turns=((1.0, 1.0),), warmup=0, cpu=((1.0,),))


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
    with pytest.raises(UserError, match=r"seconds 9, limit 3: .* at most the limit"):
        Plan(seconds=9)


@pytest.mark.parametrize("turns", ["[]", "[[]]", "[[0.0]]", "[[-1.0]]"])
def test_a_record_of_what_no_call_can_take_is_refused(turns: str) -> None:
    text = f'{{"turns": {turns}, "warmup": 0}}'.encode()
    with pytest.raises(UserError, match=r"file: turns: .*above 0 s"):
        parse(Latency, text, "file")
