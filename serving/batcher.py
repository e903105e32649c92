"""The queue: which requests are admitted, how images are batched, and the wait for answers.

By default no batch waits for more images: an idle thread takes its share of the queue. On a CPU,
larger batches do not lower the cost per image, so waiting gains nothing. On a GPU they do; there a
thread may wait for a short window.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

from starlette.requests import Request

from serving.errors import Refusal

BUSY_S = 1  # Retry-After: a full queue is processed in less
# Delay before checking whether the client is still connected. The check needs a task, a fifth of
# the event loop's time for a request, and most requests finish sooner.
_PATIENCE_S = 0.1

T = TypeVar("T")
R = TypeVar("R")


class Slots:
    """Limits the requests being read, queued or processed; for use in one event loop.

    It bounds the memory of uploads, and can refuse a request before its image is sent.
    """

    def __init__(self, count: int) -> None:
        self._free = self._all = count

    @contextmanager
    def taken(self, count: int = 1) -> Iterator[None]:
        """A context manager that takes ``count`` slots, at most all there are.

        Raises:
            Refusal: fewer slots are free.
        """
        count = min(count, self._all)
        if self._free < count:
            raise _busy()
        self._free -= count
        try:
            yield
        finally:
            self._free += count


class Batcher(Generic[T, R]):
    """Hands queued items to ``work`` in the threads of this process.

    Args:
        work: takes a batch and returns a result or an exception for each item, in order; called
            concurrently from several threads.
        threads: number of batches processed concurrently.
        size: most items in a batch.
        capacity: most items in the queue, not counting those being processed.
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
        self._idle = 0  # idle threads: items that they take at once do not count as queued
        self._threads = [
            threading.Thread(target=self._run, name=f"batch-{number}") for number in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def depth(self) -> int:
        """Returns the number of queued items."""
        return len(self._jobs)

    def submit(self, items: Sequence[T]) -> list[asyncio.Future[R]]:
        """Queues ``items`` and returns a future for each; cancelled ones are skipped.

        Call it from the event loop that will await the futures.

        Raises:
            Refusal: there is no room for all of them; none is queued.
        """
        loop = asyncio.get_running_loop()
        futures = [loop.create_future() for _ in items]
        with self._changed:
            if len(self._jobs) + len(items) > self._capacity + self._idle:
                raise _busy()
            self._jobs.extend(zip(items, futures, strict=True))
            self._changed.notify(len(items))
        return futures

    def close(self) -> None:
        """Waits until all submitted items are done; nothing may be submitted afterwards."""
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
            with suppress(RuntimeError):  # the loop is closed: nobody awaits the result
                futures[0].get_loop().call_soon_threadsafe(_settle, futures, results)

    def _take(self) -> list[tuple[T, asyncio.Future[R]]]:
        """Waits for the next batch and returns it; an empty one after :meth:`close`."""
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


async def wait_for(
    answers: Sequence[asyncio.Future[Any]], request: Request, seconds: float
) -> list[Any]:
    """Awaits ``answers`` and returns a result or an exception for each, in order.

    Raises:
        Refusal: not all were done within ``seconds``, or the client disconnected; the rest are
            cancelled.
    """
    loop = asyncio.get_running_loop()
    watches: list[asyncio.Task[None]] = []

    def give_up(*_: object) -> None:
        for answer in answers:
            answer.cancel()  # this also marks the exception of a finished one as retrieved

    def watch() -> None:
        watches.append(loop.create_task(_hung_up(request)))
        watches[0].add_done_callback(give_up)

    late = loop.call_later(seconds, give_up)
    slow = loop.call_later(_PATIENCE_S, watch)
    found: list[Any] = []
    try:
        for answer in answers:
            try:
                found.append(await answer)
            except Exception as error:
                found.append(error)
    except asyncio.CancelledError:
        give_up()
        this = asyncio.current_task()
        if this is not None and this.cancelling():
            raise  # this task itself was cancelled: the server stops
        if any(task.done() for task in watches):
            detail = "the connection closed before the answer"
            raise Refusal(400, "incomplete", detail) from None
        detail = f"no answer within {seconds:g} s; the service is overloaded"
        raise Refusal(504, "too_late", detail) from None
    finally:
        late.cancel()
        slow.cancel()
        for task in watches:
            task.cancel()
    return found


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _busy() -> Refusal:
    """Returns the refusal of a request that does not fit into the queue."""
    return Refusal(
        429,
        "busy",
        f"the queue is full; try again in {BUSY_S} s",
        headers={"retry-after": str(BUSY_S)},
    )


def _settle(futures: Sequence[asyncio.Future[R]], results: Sequence[R | Exception]) -> None:
    for future, result in zip(futures, results, strict=True):
        if future.done():  # cancelled meanwhile
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)
