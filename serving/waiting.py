"""The wait of a request for its answers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from serving.errors import Refusal

# Delay before checking whether the client is still connected. The check needs a task, a fifth of
# the event loop's time for a request, and most requests finish sooner.
_PATIENCE_S = 0.1


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
