from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from serving.batcher import Batcher, Threads
from serving.errors import Refusal

ROOT = Path(__file__).resolve().parents[2]
Started = Callable[[int], Threads]


@pytest.fixture
def threads() -> Iterator[Started]:
    """Returns what starts threads, which end after the test."""
    with ExitStack() as stack:
        yield lambda count: stack.enter_context(closing(Threads(count)))


class Worker:
    """Doubles numbers in batches it remembers; waits at a gate until it is opened."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(items))
        assert self.gate.wait(10)
        return [ValueError(str(item)) if item < 0 else 2 * item for item in items]


async def until(condition: object) -> None:
    for _ in range(1000):
        if condition():  # type: ignore[operator]
            return
        await asyncio.sleep(0.005)
    raise AssertionError("never true")


def test_a_lone_item_does_not_wait_and_a_queue_is_shared_out(threads: Started) -> None:
    worker = Worker()
    batcher = Batcher(worker, threads=threads(2), size=3, capacity=100)

    async def run() -> list[int]:
        first = batcher.submit([1])
        second = batcher.submit([2])
        await until(lambda: len(worker.batches) == 2)
        assert sorted(worker.batches) == [[1], [2]]  # both at work, each alone
        rest = batcher.submit([3, 4, 5, 6, 7, 8, 9])
        assert batcher.depth == 7
        worker.gate.set()
        return await asyncio.gather(*first, *second, *rest)

    assert asyncio.run(run()) == [2, 4, 6, 8, 10, 12, 14, 16, 18]
    batcher.close()
    later = worker.batches[2:]
    assert later[0] == [3, 4, 5]  # half of seven is four: the size holds
    assert sorted(item for batch in later for item in batch) == [3, 4, 5, 6, 7, 8, 9]
    assert max(map(len, later)) <= 3


def test_an_error_is_its_own_items(threads: Started) -> None:
    worker = Worker()
    worker.gate.set()
    batcher = Batcher(worker, threads=threads(1), size=8, capacity=8)

    async def run() -> list[int | BaseException]:
        return await asyncio.gather(*batcher.submit([1, -2, 3]), return_exceptions=True)

    one, two, three = asyncio.run(run())
    assert (one, three) == (2, 6)
    assert isinstance(two, ValueError)
    batcher.close()


def test_work_that_fails_fails_its_batch_only(threads: Started) -> None:
    def broken(items: Sequence[int]) -> list[int | Exception]:
        if 0 in items:
            raise ZeroDivisionError
        return list(items)

    batcher = Batcher(broken, threads=threads(1), size=1, capacity=8)

    async def run() -> list[int | BaseException]:
        return await asyncio.gather(*batcher.submit([0, 1]), return_exceptions=True)

    failed, worked = asyncio.run(run())
    assert isinstance(failed, ZeroDivisionError)
    assert worked == 1
    batcher.close()


def test_full_is_full_and_nothing_of_it_is_taken(threads: Started) -> None:
    worker = Worker()
    batcher = Batcher(worker, threads=threads(1), size=1, capacity=2)

    async def run() -> None:
        busy = batcher.submit([1])
        await until(lambda: worker.batches)
        waiting = batcher.submit([2])
        with pytest.raises(Refusal):
            batcher.submit([3, 4])
        assert batcher.depth == 1
        fits = batcher.submit([5])
        worker.gate.set()
        assert await asyncio.gather(*busy, *waiting, *fits) == [2, 4, 10]

    asyncio.run(run())
    batcher.close()
    assert worker.batches == [[1], [2], [5]]


def test_who_gave_up_is_not_worked_for(threads: Started) -> None:
    worker = Worker()
    batcher = Batcher(worker, threads=threads(1), size=2, capacity=8)

    async def run() -> None:
        (busy,) = batcher.submit([1])
        await until(lambda: worker.batches)
        two, three, four, five = batcher.submit([2, 3, 4, 5])
        for gone in (busy, two, three, four):
            gone.cancel()
        worker.gate.set()
        assert await five == 10

    asyncio.run(run())
    batcher.close()
    assert worker.batches == [[1], [5]]


def test_a_window_fills_a_batch(threads: Started) -> None:
    worker = Worker()
    worker.gate.set()
    batcher = Batcher(worker, threads=threads(2), size=3, capacity=8, window=3600)

    async def run() -> list[int]:
        first = batcher.submit([1])
        await asyncio.sleep(0.05)
        answers = asyncio.gather(*first, *batcher.submit([2, 3]))
        return await asyncio.wait_for(answers, 60)  # full: it does not wait for the window's end

    assert asyncio.run(run()) == [2, 4, 6]
    batcher.close()
    assert worker.batches == [[1, 2, 3]]


def test_a_window_that_passes_sends_what_there_is(threads: Started) -> None:
    worker = Worker()
    worker.gate.set()
    batcher = Batcher(worker, threads=threads(1), size=3, capacity=8, window=0.05)

    async def run() -> list[int]:
        return await asyncio.gather(*batcher.submit([1, 2]))

    assert asyncio.run(run()) == [2, 4]
    batcher.close()
    assert worker.batches == [[1, 2]]


def test_closing_finishes_what_was_taken(threads: Started) -> None:
    worker = Worker()
    batcher = Batcher(worker, threads=threads(1), size=1, capacity=8)

    async def run() -> list[int]:
        futures = batcher.submit([1, 2, 3])
        await until(lambda: worker.batches)
        closing = asyncio.get_running_loop().run_in_executor(None, batcher.close)
        worker.gate.set()
        await closing
        return await asyncio.gather(*futures)

    assert asyncio.run(run()) == [2, 4, 6]


class Clock:
    """Stands for the module time: it goes on only when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    monotonic = perf_counter


def test_a_flooded_queue_leaves_half_of_the_time_to_another(
    threads: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, order, gate = Clock(), list[str](), threading.Event()
    monkeypatch.setattr("serving.batcher.time", clock)

    def work(name: str, seconds: float) -> Callable[[Sequence[int]], list[int | Exception]]:
        def process(items: Sequence[int]) -> list[int | Exception]:
            order.append(name)
            if len(order) == 4:
                assert gate.wait(60)
            clock.now += seconds
            return list(items)

        return process

    shared = threads(1)
    slow = Batcher(work("slow", 0.02), threads=shared, size=1, capacity=100)
    fast = Batcher(work("fast", 0.005), threads=shared, size=1, capacity=100)

    async def run() -> None:
        flood = slow.submit(range(20))
        await until(lambda: len(order) == 4)
        others = fast.submit(range(12))
        gate.set()
        await asyncio.gather(*flood, *others)

    asyncio.run(run())
    slow.close()
    fast.close()
    while_both = order[4 : len(order) - order[::-1].index("fast")]
    assert while_both[0] == "fast"  # it owes nothing for the time before it came
    # Half of the time each: four fast ones for a slow one, not one for one.
    assert 2 <= while_both.count("slow") <= 3


def test_a_queue_ends_while_another_goes_on(threads: Started) -> None:
    shared = threads(2)
    worker, other = Worker(), Worker()
    other.gate.set()
    busy = Batcher(worker, threads=shared, size=1, capacity=9)
    ended = Batcher(other, threads=shared, size=1, capacity=9)

    async def run() -> None:
        (waiting,) = busy.submit([1])
        done = ended.submit([2, 3])
        await asyncio.to_thread(ended.close)
        assert await asyncio.gather(*done) == [4, 6]
        worker.gate.set()
        assert await waiting == 2
        assert await busy.submit([4])[0] == 8

    asyncio.run(run())
    busy.close()


def test_a_process_that_does_not_close_its_threads_ends() -> None:
    code = "from serving.batcher import Threads; Threads(2); raise SystemExit(3)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60).returncode == 3
