"""Batches that nobody waits for: an idle thread takes its share of what is queued.

On a CPU a batch of eight costs per image what a batch of one does, so there is nothing to wait
for. On a GPU it is the other way round: there a thread may wait a short window for more.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class QueueFull(Exception):
    """More items than there is room for; none of them was taken."""


class Batcher(Generic[T, R]):
    """Hands queued items to ``work`` in the threads of this process.

    Args:
        work: takes a batch, returns a result or an exception for each item, in order. It is
            called from several threads at once.
        threads: how many batches are worked on at once.
        size: most items in a batch.
        capacity: most items that wait; those being worked on do not count.
        window: seconds that a thread waits for a batch to fill.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Sequence[R | Exception]],
        *,
        threads: int,
        size: int,
        capacity: int,
        window: float = 0.0,
    ) -> None:
        self._work = work
        self._size = size
        self._capacity = capacity
        self._window = window
        self._jobs: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._idle = 0  # threads that wait: what they will take at once does not wait
        self._threads = [
            threading.Thread(target=self._run, name=f"batch-{number}") for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def depth(self) -> int:
        """Returns how many items wait."""
        return len(self._jobs)

    def submit(self, items: Sequence[T]) -> list[asyncio.Future[R]]:
        """Returns a future for each of ``items``; a cancelled one is not worked on any more.

        Called from the event loop that is to wait for them.

        Raises:
            QueueFull: there is no room for all of them.
        """
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in items]
        with self._changed:
            if len(self._jobs) + len(items) > self._capacity + self._idle:
                raise QueueFull
            self._jobs.extend(zip(items, futures, strict=True))
            self._changed.notify(len(items))
        return futures

    def close(self) -> None:
        """Returns when all that was submitted is done; nothing may follow."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while jobs := self._take():
            futures = [future for _, future in jobs]
            try:
                results = self._work([item for item, _ in jobs])
            except Exception as error:
                results = [error] * len(jobs)
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                futures[0].get_loop().call_soon_threadsafe(_settle, futures, results)

    def _take(self) -> list[tuple[T, asyncio.Future[R]]]:
        """Returns the next batch, waiting for it; an empty one after the end."""
        with self._changed:
            while True:
                self._idle += 1
                self._changed.wait_for(lambda: self._jobs or self._closed)
                self._idle -= 1
                if not self._jobs:
                    return []
                if self._window:
                    self._fill()
                    share = len(self._jobs)
                else:
                    share = -(-len(self._jobs) // len(self._threads))
                count = min(share, self._size, len(self._jobs))
                taken = [self._jobs.popleft() for _ in range(count)]
                if wanted := [job for job in taken if not job[1].cancelled()]:
                    return wanted

    def _fill(self) -> None:
        end = time.monotonic() + self._window
        while len(self._jobs) < self._size and not self._closed:
            if not self._changed.wait(max(0.0, end - time.monotonic())):
                return


def _settle(futures: Sequence[asyncio.Future[R]], results: Sequence[R | Exception]) -> None:
    for future, result in zip(futures, results, strict=True):
        if future.done():  # cancelled meanwhile
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
