"""The queue: which requests are admitted, how images are batched, and the wait for answers.

No batch waits for more images: an idle thread takes its share of what is queued. On a CPU a batch
of eight costs per image what a batch of one does, so there is nothing to wait for. On a GPU it is
the other way round: there a thread may wait a short window for more.
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

BUSY_S = 1  # when to try again: a full queue is worked off in less
# When it is asked whether the client is still there. To ask takes a task, which costs the event
# loop a fifth of what all of a request does, and most answers come sooner.
_PATIENCE_S = 0.1

T = TypeVar("T")
R = TypeVar("R")


class Slots:
    """A count of requests that are being read, wait or are worked on; used in one event loop.

    It bounds what uploads hold in memory, and tells a client before it sends its image.
    """

    def __init__(self, count: int) -> None:
        self._free = self._all = count

    @contextmanager
    def taken(self, count: int = 1) -> Iterator[None]:
        """Yields while ``count`` slots are taken, or all there are.

        Raises:
            Refusal: fewer are free.
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
            Refusal: there is no room for all of them; none is taken.
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


async def wait_for(
    answers: Sequence[asyncio.Future[Any]], request: Request, seconds: float
) -> list[Any]:
    """Returns what became of ``answers``, in order: a result or an exception for each.

    Raises:
        Refusal: they did not all come within ``seconds``, or the client hung up; those still
            missing are cancelled.
    """
    loop = asyncio.get_running_loop()
    watches: list[asyncio.Task[None]] = []

    def give_up(*_: object) -> None:
        for answer in answers:
            answer.cancel()  # one that is there already counts as looked at by this, too

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
            raise  # not the answers alone: the server ends
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
    """Returns the refusal of a request for which there is no room."""
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
