"""The queues of images, and the threads that process them in batches.

By default no batch waits for more images: an idle thread takes its share of the queue. On a CPU,
larger batches do not lower the cost per image, so waiting gains nothing. On a GPU they do; there a
thread may wait for a short window.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import Any, Generic, TypeVar

from serving.errors import busy

T = TypeVar("T")
R = TypeVar("R")


class Threads:
    """Threads that process the batches of several queues, fairly.

    A free thread takes from the queue that has had the least time of the threads so far, where a
    queue that was empty starts level with the others (start-time fair queueing, Goyal et al. 1996).
    So each of the models that have work gets the same time, however many images wait for one.

    Args:
        count: number of batches processed concurrently.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.changed = threading.Condition()
        self.idle = 0  # idle threads: items that they take at once do not count as queued
        self.level = 0.0  # time of the queue that was taken from last, before that
        self._queues: list[Batcher[Any, Any]] = []
        self._closed = False
        # As daemons: a process that ends without closing them, such as a worker that is stopped
        # before it serves, would wait for them for ever.
        self._threads = [
            threading.Thread(target=self._run, name=f"batch-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def add(self, queue: Batcher[Any, Any]) -> None:
        """Takes from ``queue``, too."""
        with self.changed:
            self._queues.append(queue)

    def remove(self, queue: Batcher[Any, Any]) -> None:
        """Waits until all items of ``queue`` are done, and takes from it no more."""
        with self.changed:
            self.changed.wait_for(lambda: queue.is_done)
            self._queues.remove(queue)

    def close(self) -> None:
        """Waits until all submitted items are done; nothing may be submitted afterwards."""
        with self.changed:
            self._closed = True
            self.changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        queue: Batcher[Any, Any] | None = None
        seconds = 0.0
        while True:
            with self.changed:
                if queue is not None:
                    queue.end(seconds)
                queue, jobs = self._next()
            if queue is None:
                return
            began = time.perf_counter()
            queue.process(jobs)
            seconds = time.perf_counter() - began

    def _next(self) -> tuple[Batcher[Any, Any] | None, list[Any]]:
        """Waits for the next batch and returns it with its queue; no queue after :meth:`close`."""
        while True:
            self.idle += 1
            self.changed.wait_for(self._has_work)
            self.idle -= 1
            waiting = [queue for queue in self._queues if queue.depth]
            if not waiting:
                return None, []
            queue = waiting[0]
            if len(waiting) > 1:
                queue = min(waiting, key=attrgetter("background", "spent"))
            if jobs := queue.take():
                return queue, jobs

    def _has_work(self) -> bool:
        return self._closed or any(queue.depth for queue in self._queues)


class Batcher(Generic[T, R]):
    """The queue of a model: hands its items to ``work`` in shared threads.

    Args:
        work: takes a batch and returns a result or an exception for each item, in order; called
            concurrently from several threads.
        threads: process the batches, of other queues too.
        size: most items in a batch.
        capacity: most items in the queue, not counting those being processed.
        window: seconds that a thread waits for a batch to fill.
        background: whether a thread takes from it only if all other queues are empty.

    Attributes:
        spent: seconds of the threads that its batches took, those in progress as expected.
    """

    def __init__(
        self,
        work: Callable[[Sequence[T]], Sequence[R | Exception]],
        *,
        threads: Threads,
        size: int,
        capacity: int,
        window: float = 0.0,
        background: bool = False,
    ) -> None:
        self._work = work
        self.background = background
        self._threads = threads
        self._size = size
        self._capacity = capacity
        self._window = window
        self._jobs: deque[tuple[T, asyncio.Future[R]]] = deque()
        self._closed = False
        self._running = 0  # batches
        self._usual = 0.0  # seconds of a batch
        self.spent = 0.0
        threads.add(self)

    @property
    def depth(self) -> int:
        """Returns the number of queued items."""
        return len(self._jobs)

    @property
    def is_done(self) -> bool:
        """Returns whether no item is queued or being processed."""
        return not self._jobs and not self._running

    def submit(self, items: Sequence[T]) -> list[asyncio.Future[R]]:
        """Queues ``items`` and returns a future for each; cancelled ones are skipped.

        Call it from the event loop that will await the futures.

        Raises:
            Refusal: there is no room for all of them; none is queued.
        """
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in items]
        threads = self._threads
        with threads.changed:
            if len(self._jobs) + len(items) > self._capacity + threads.idle:
                raise busy()
            if self.spent < threads.level and not self._jobs:
                self.spent = threads.level
            self._jobs.extend(zip(items, futures, strict=True))
            threads.changed.notify(len(items))
        return futures

    def close(self) -> None:
        """Waits until all submitted items are done; nothing may be submitted afterwards."""
        self._closed = True
        with self._threads.changed:
            self._threads.changed.notify_all()  # a thread may wait for a batch to fill
        self._threads.remove(self)

    def take(self) -> list[tuple[T, asyncio.Future[R]]]:
        """Returns the next batch, empty if nobody waits for it any more; the lock is held."""
        if self._window:
            self._fill()
            share = len(self._jobs)
        else:
            share = -(-len(self._jobs) // self._threads.count)
        count = min(share, self._size, len(self._jobs))
        taken = [self._jobs.popleft() for _ in range(count)]
        wanted = [job for job in taken if not job[1].cancelled()]
        if wanted:
            if not self.background:
                self._threads.level = self.spent
            self.spent += self._usual
            self._running += 1
        if self._closed:
            self._threads.changed.notify_all()
        return wanted

    def process(self, jobs: Sequence[tuple[T, asyncio.Future[R]]]) -> None:
        """Works on a batch and settles its futures."""
        futures = [future for _, future in jobs]
        try:
            results = self._work([item for item, _ in jobs])
        except Exception as error:
            results = [error] * len(jobs)
        with suppress(RuntimeError):  # the loop is closed: nobody awaits the result
            futures[0].get_loop().call_soon_threadsafe(_settle, futures, results)

    def end(self, seconds: float) -> None:
        """Accounts for a batch that took ``seconds``; the lock is held."""
        self._running -= 1
        self.spent += seconds - self._usual
        self._usual += (seconds - self._usual) / 8
        if self._closed:
            self._threads.changed.notify_all()

    def _fill(self) -> None:
        end = time.monotonic() + self._window
        while len(self._jobs) < self._size and not self._closed:
            if not self._threads.changed.wait(max(0.0, end - time.monotonic())):
                return


def _settle(futures: Sequence[asyncio.Future[R]], results: Sequence[R | Exception]) -> None:
    for future, result in zip(futures, results, strict=True):
        if future.done():  # cancelled meanwhile
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
