"""Admission: how many requests are in hand at once, and how long one waits for its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from starlette.requests import Request

from serving.uploads import Refusal

BUSY_S = 1  # when to come again: a full queue is worked off in less
# When it is asked whether the client is still there. To ask takes a task, which costs the event
# loop a fifth of what all of a request does, and most answers come sooner.
_PATIENCE_S = 0.1


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
            raise busy()
        self._free -= count
        try:
            yield
        finally:
            self._free += count


def busy() -> Refusal:
    """Returns the refusal of a request that does not fit."""
    return Refusal(
        429,
        "busy",
        f"the queue is full; come again in {BUSY_S} s",
        headers={"retry-after": str(BUSY_S)},
    )


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
