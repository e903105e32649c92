"""The wait for answers, and its ends."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from starlette.requests import Request

from serving.errors import Refusal
from serving.waiting import wait_for

Answers = list[asyncio.Future[Any]]


def request_of(hang_up_after: float) -> Request:
    """Returns a request whose client says no more, and is gone after so many seconds."""

    async def receive() -> Any:
        await asyncio.sleep(hang_up_after)
        return {"type": "http.disconnect"}

    return Request({"type": "http"}, receive)


def run(work: Callable[[Answers], Awaitable[object]]) -> list[dict[str, Any]]:
    """Returns what the event loop had to complain of while ``work`` ran with three answers."""
    complaints: list[dict[str, Any]] = []

    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(context))
        answers: Answers = [loop.create_future() for _ in range(3)]
        await work(answers)
        await asyncio.sleep(0)  # what was cancelled ends
        assert asyncio.all_tasks() == {asyncio.current_task()}
        answers.clear()
        gc.collect()

    asyncio.run(main())
    return complaints


def test_answers_come_in_order_whatever_they_are() -> None:
    refusal = Refusal(400, "empty", "nothing")

    async def work(answers: Answers) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(0.02, answers[0].set_result, "first")
        answers[1].set_exception(refusal)
        loop.call_later(0.01, answers[2].set_exception, ValueError("ours"))
        first, second, third = await wait_for(answers, request_of(60), 60)
        assert (first, second) == ("first", refusal)
        assert isinstance(third, ValueError)

    assert run(work) == []


@pytest.mark.parametrize(
    ("seconds", "hang_up", "status"), [(0.2, 60, 504), (0.01, 60, 504), (60, 0.01, 400)]
)
def test_nobody_waits_for_ever(seconds: float, hang_up: float, status: int) -> None:
    async def work(answers: Answers) -> None:
        answers[2].set_exception(ValueError("seen by nobody"))
        with pytest.raises(Refusal) as refused:
            await wait_for(answers, request_of(hang_up), seconds)
        assert refused.value.status == status
        assert [answer.cancelled() for answer in answers] == [True, True, False]

    assert run(work) == []


def test_a_server_that_ends_waits_for_no_answer() -> None:
    async def work(answers: Answers) -> None:
        waiting = asyncio.create_task(wait_for(answers, request_of(60), 60))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert all(answer.cancelled() for answer in answers)

    assert run(work) == []
