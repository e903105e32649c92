"""Answers a request by a model: reads the images, queues them and awaits the predictions."""

from __future__ import annotations

import asyncio
import reprlib
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serving.answers import Found
from serving.bodies import TOP_K
from serving.errors import Refusal
from serving.models import Models
from serving.predictor import Upload, unwrap
from serving.served import Served
from serving.uploads import BATCH, Content, advise, read_image, read_images
from serving.waiting import wait_for

T = TypeVar("T")


async def answer_image(served: Served, request: Request, models: Models | None = None) -> Response:
    """Returns the response to a request with one image.

    Args:
        served: the model that answers.
        request: the request.
        models: those of the service, if the request names none of them: then a shadow is asked,
            too, and a header names the model that answered where there is a canary.
    """
    predictor = served.predictor
    max_bytes = predictor.settings.max_bytes
    (found,) = await _classify(served, request, lambda: read_image(request, max_bytes), 1, models)
    if isinstance(found, Refusal):
        raise advise(found, request)
    timing = ", ".join(f"{stage};dur={ms}" for stage, ms in found["timings_ms"].items())
    return Response(
        to_json({**found, **predictor.names}),  # a fifth of the time of the standard library's
        media_type="application/json",
        headers={"server-timing": timing, **_named(served, models)},
    )


async def answer_images(served: Served, request: Request, models: Models | None = None) -> Response:
    """Returns the response to a request with several images, each with a result of its own.

    The arguments are those of :func:`answer_image`.
    """
    predictor = served.predictor
    settings = predictor.settings

    def read() -> Awaitable[Content]:
        return read_images(request, settings.max_bytes, settings.max_images)

    # It takes slots in proportion to its byte limit.
    found = await _classify(served, request, read, BATCH, models)
    results = [each.body if isinstance(each, Refusal) else each for each in found]
    body = {"results": results, **predictor.names}
    return JSONResponse(body, headers=_named(served, models))


def _named(served: Served, models: Models | None) -> dict[str, str]:
    if models is None or models.canary is None:
        return {}
    return {"x-model": served.entry.reference}


async def _classify(
    served: Served,
    request: Request,
    read: Callable[[], Awaitable[Content]],
    size: int,
    models: Models | None,
) -> list[Found | Refusal]:
    predictor = served.predictor
    request.scope["model"] = served.entry.key
    seconds = predictor.settings.deadline_ms / 1e3
    _choose_top_k(served, request)  # refuse an invalid one before the upload
    with served.slots.taken(size):
        content = await read_in_time(read(), seconds)
        top_k = _choose_top_k(served, request, content.top_k)
        answers = predictor.predict([Upload(data, top_k) for data in content.images])
        found = unwrap(await wait_for(answers, request, seconds))
    if models is not None and models.shadow is not None:
        models.shadow.offer(served, content.images, found)
    return found


async def read_in_time(body: Awaitable[T], seconds: float) -> T:
    """Awaits ``body`` with a timeout, so that a slow client cannot keep its slot.

    Raises:
        Refusal: it took longer than ``seconds``.
    """
    try:
        async with asyncio.timeout(seconds):
            return await body
    except TimeoutError:
        raise Refusal(408, "slow_upload", f"the upload did not end within {seconds:g} s") from None


def _choose_top_k(served: Served, request: Request, given: object = None) -> int:
    predictor = served.predictor
    labels = len(predictor.artifact.labels)
    return min(labels, _top_k(request, given, labels) or predictor.settings.top_k)


def _top_k(request: Request, given: object, labels: int) -> int | None:
    """Returns ``top_k`` from the query, or ``given`` from the body; None if neither has it.

    Raises:
        Refusal: both have it, or it is not an integer in 1..``labels``.
    """
    # Parsing an empty query would take longer than this check.
    text = request.query_params.get(TOP_K) if request.scope["query_string"] else None
    if text is not None and given is not None:
        raise Refusal(422, "bad_top_k", "top_k is in the query and in the JSON: send it in one")
    asked = given if text is None else text
    number = asked
    if text is not None and text.isascii() and text.isdecimal() and len(text) < 10:
        number = int(text)
    elif isinstance(given, float) and given.is_integer():
        number = int(given)
    if number is None:
        return None
    if isinstance(number, int) and not isinstance(number, bool) and 1 <= number <= labels:
        return number
    detail = f"top_k is {reprlib.repr(asked)}: it must be a whole number in 1..{labels}"
    raise Refusal(422, "bad_top_k", detail)
