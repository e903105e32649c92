from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from serving.batcher import Batcher
from serving.errors import Refusal


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


def test_a_lone_item_does_not_wait_and_a_queue_is_shared_out() -> None:
    worker = Worker()
    batcher = Batcher(worker, threads=2, size=3, capacity=100)

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


def test_an_error_is_its_own_items() -> None:
    worker = Worker()
    worker.gate.set()
    batcher = Batcher(worker, threads=1, size=8, capacity=8)

    async def run() -> list[int | BaseException]:
        return await asyncio.gather(*batcher.submit([1, -2, 3]), return_exceptions=True)

    one, two, three = asyncio.run(run())
    assert (one, three) == (2, 6)
    assert isinstance(two, ValueError)
    batcher.close()


def test_work_that_fails_fails_its_batch_only() -> None:
    def broken(items: Sequence[int]) -> list[int | Exception]:
        if 0 in items:
            raise ZeroDivisionError
        return list(items)

    batcher = Batcher(broken, threads=1, size=1, capacity=8)

    async def run() -> list[int | BaseException]:
        return await asyncio.gather(*batcher.submit([0, 1]), return_exceptions=True)

    failed, worked = asyncio.run(run())
    assert isinstance(failed, ZeroDivisionError)
    assert worked == 1
    batcher.close()


def test_full_is_full_and_nothing_of_it_is_taken() -> None:
    worker = Worker()
    batcher = Batcher(worker, threads=1, size=1, capacity=2)

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


def test_who_gave_up_is_not_worked_for() -> None:
    worker = Worker()
    batcher = Batcher(worker, threads=1, size=2, capacity=8)

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


def test_a_window_fills_a_batch() -> None:
    worker = Worker()
    worker.gate.set()
    batcher = Batcher(worker, threads=2, size=3, capacity=8, window=5)

    async def run() -> list[int]:
        first = batcher.submit([1])
        await asyncio.sleep(0.05)
        return await asyncio.gather(*first, *batcher.submit([2, 3]))

    began = time.monotonic()
    assert asyncio.run(run()) == [2, 4, 6]
    assert time.monotonic() - began < 5  # full: it did not wait for the end of the window
    batcher.close()
    assert worker.batches == [[1, 2, 3]]


def test_a_window_that_passes_sends_what_there_is() -> None:
    worker = Worker()
    worker.gate.set()
    batcher = Batcher(worker, threads=1, size=3, capacity=8, window=0.05)

    async def run() -> list[int]:
        return await asyncio.gather(*batcher.submit([1, 2]))

    assert asyncio.run(run()) == [2, 4]
    batcher.close()
    assert worker.batches == [[1, 2]]


def test_closing_finishes_what_was_taken() -> None:
    worker = Worker()
    batcher = Batcher(worker, threads=1, size=1, capacity=8)

    async def run() -> list[int]:
        futures = batcher.submit([1, 2, 3])
        await until(lambda: worker.batches)
        closing = asyncio.get_running_loop().run_in_executor(None, batcher.close)
        worker.gate.set()
        await closing
        return await asyncio.gather(*futures)

    assert asyncio.run(run()) == [2, 4, 6]
