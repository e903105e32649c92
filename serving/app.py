"""The HTTP interface as a Starlette application.

It is mounted into the BentoML service, which adds ``/healthz`` and ``/readyz``. A mounted
application answers a request in half the time of BentoML's own typed endpoints.
"""

from __future__ import annotations

import asyncio
import dataclasses
import reprlib
import warnings
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any, TypeVar

from pydantic import Field
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from core.image_types import list_suffixes
from core.preprocess import TYPES
from serving.answers import (
    PRIVATE,
    Answer,
    Answers,
    Error,
    Facts,
    Found,
    body_types,
    top_k_type,
)
from serving.bodies import FIELD, TOP_K
from serving.errors import Refusal
from serving.metrics import exposition
from serving.openapi import describe_api
from serving.pages import page_routes
from serving.predictor import Predictor, Upload, unwrap
from serving.routes import Handler, Reply, Route, bento_routes, middleware
from serving.slots import Slots
from serving.uploads import ANY, BATCH, Content, advise, read_image, read_images
from serving.waiting import wait_for

T = TypeVar("T")

# A PNG of one pixel, as an example in the OpenAPI document.
_PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR42mP4z8AAAAMBAQD3A0FDAAAAAElFTkSuQmCC"
)
_SECONDS = Annotated[str, Field(pattern="^[0-9]+$", description="Seconds")]
_STAGES = Annotated[
    str,
    Field(
        description="The stages' milliseconds, as browsers show them",
        examples=["decode;dur=0.9, resize;dur=0.6, queue;dur=0.1, inference;dur=6.5"],
    ),
]


def create_app(predictor: Predictor, more: Sequence[Route] = ()) -> Starlette:
    """Returns the application around ``predictor``; its lifespan opens and closes the predictor.

    Routes are answered in its middleware, which can be put around BentoML's application too.

    Args:
        predictor: classifies the images.
        more: further routes.
    """
    # Warnings about uploads do not concern the operator, and Python keeps their texts for ever.
    warnings.filterwarnings("ignore", module="PIL")
    settings, artifact = predictor.settings, predictor.artifact
    labels, seconds = len(artifact.labels), settings.deadline_ms / 1e3
    slots = Slots(settings.queue_size + settings.threads).share()
    facts = _facts(predictor)

    def choose_top_k(request: Request, given: object = None) -> int:
        return min(labels, _top_k(request, given, labels) or settings.top_k)

    async def classify(
        request: Request, read: Callable[[], Awaitable[Content]], size: int
    ) -> list[Found | Refusal]:
        choose_top_k(request)  # refuse an invalid one before the upload
        with slots.taken(size):
            content = await _read(read(), seconds)
            top_k = choose_top_k(request, content.top_k)
            answers = predictor.predict([Upload(data, top_k) for data in content.images])
            return unwrap(await wait_for(answers, request, seconds))

    async def predict(request: Request) -> Response:
        (found,) = await classify(request, lambda: read_image(request, settings.max_bytes), 1)
        if isinstance(found, Refusal):
            raise advise(found, request)
        timing = ", ".join(f"{stage};dur={ms}" for stage, ms in found["timings_ms"].items())
        return Response(
            to_json({**found, **predictor.names}),  # a fifth of the time of the standard library's
            media_type="application/json",
            headers={"server-timing": timing},
        )

    async def predict_batch(request: Request) -> Response:
        def read() -> Awaitable[Content]:
            return read_images(request, settings.max_bytes, settings.max_images)

        found = await classify(request, read, BATCH)  # takes slots in proportion to its byte limit
        results = [each.body if isinstance(each, Refusal) else each for each in found]
        return JSONResponse({"results": results, **predictor.names})

    async def model(request: Request) -> Response:
        return JSONResponse(facts)

    async def openapi(request: Request) -> Response:
        return JSONResponse(api)

    async def metrics(request: Request) -> Response:
        return exposition()

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
        with predictor:
            yield

    model_text = "What the service runs: manifest, labels, costs, gates, limits"
    metrics_text = "Figures for Prometheus"
    routes = [
        *_predict_routes(predictor, predict, predict_batch),
        Route("/model", model, summary=model_text, replies={200: Reply("The facts", Facts)}),
        Route("/openapi.json", openapi, public=True),
        Route(
            "/metrics",
            metrics,
            public=True,
            query=None,  # Prometheus may be configured to send some
            summary=metrics_text,
            replies={200: Reply(metrics_text, str)},
        ),
        *page_routes(),
        *bento_routes(),
        *more,
    ]
    api = describe_api(settings, artifact, routes)
    return Starlette(middleware=middleware(settings, routes), lifespan=lifespan)


def _predict_routes(predictor: Predictor, single: Handler, several: Handler) -> list[Route]:
    """Returns the routes ``/predict`` and ``/predict_batch``, with the configured limits."""
    settings, labels = predictor.settings, predictor.artifact.labels
    top_k = top_k_type(len(labels), settings.top_k)
    seconds = settings.deadline_ms / 1e3
    limits = f"up to {settings.max_bytes} bytes and {settings.max_pixels} pixels"
    coding = "Content-Encoding may be gzip; the limits are of what it holds."
    found: Found = {
        "predictions": [{"label": labels[0], "index": 0, "score": 0.93}],
        "timings_ms": {"decode": 0.9, "resize": 0.6, "queue": 0.1, "inference": 6.5},
    }
    answer: Answer = {**found, **predictor.names}
    error: Error = {"error": "not_an_image", "detail": "123 bytes: cannot be read as an image"}
    answers: Answers = {"results": [found, error], **predictor.names}
    refusals = {
        400: "Not an image, a truncated one, a broken body or none, or an unknown parameter",
        408: f"The upload did not end within {seconds:g} s",
        413: f"Over {settings.max_bytes} bytes, or over {settings.max_pixels} pixels",
        415: f"Another image type than {', '.join(TYPES)}, another content encoding than gzip, or "
        "a batch of another content type",
        422: f"top_k is no whole number in 1..{len(labels)}, or in both query and JSON",
        429: f"The queue is full ({settings.queue_size} images)",
        504: f"No answer within {seconds:g} s",
    }
    replies = {status: Reply(text, Error) for status, text in refusals.items()}
    replies[429] = replies[429]._replace(headers={"Retry-After": _SECONDS})
    likeliest = "The likeliest labels"
    return [
        Route(
            "/predict",
            single,
            method="POST",
            query={TOP_K: top_k},
            summary="Classify an image",
            takes=f"{', '.join(TYPES)}; {limits}. As a form's file {FIELD!r}, in JSON, or as the "
            "whole body, whose bytes decide what it is: its content type may be any other, or "
            f"missing. {coding}",
            body={**body_types(None, top_k), "image/*": bytes, ANY: bytes},
            examples={"application/json": {"image": _PIXEL}},
            replies={
                200: Reply(likeliest, Answer, answer, {"Server-Timing": _STAGES}),
                **replies,
            },
        ),
        Route(
            "/predict_batch",
            several,
            method="POST",
            query={TOP_K: top_k},
            summary="Classify several images; a bad one spoils no other",
            takes=f"Up to {settings.max_images} files {FIELD!r}, or as many images in JSON, "
            f"together at most {BATCH * settings.max_bytes} bytes. {', '.join(TYPES)}; {limits}. "
            f"{coding}",
            body=body_types(settings.max_images, top_k),
            examples={"application/json": {"images": [f"data:image/png;base64,{_PIXEL}"]}},
            replies={200: Reply(likeliest, Answers, answers), **replies},
        ),
    ]


async def _read(body: Awaitable[T], seconds: float) -> T:
    """Awaits ``body`` with a timeout, so that a slow client cannot keep its slot."""
    try:
        async with asyncio.timeout(seconds):
            return await body
    except TimeoutError:
        raise Refusal(408, "slow_upload", f"the upload did not end within {seconds:g} s") from None


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


def _facts(predictor: Predictor) -> dict[str, Any]:
    """Returns the response of ``GET /model``: the manifest without paths of this machine."""
    settings, artifact = predictor.settings, predictor.artifact
    facts = dataclasses.asdict(artifact)
    for private in PRIVATE:
        del facts[private]
    limits = ("max_bytes", "max_pixels", "max_images")
    return {
        **facts,
        "runtime": settings.runtime,
        "limits": {name: getattr(settings, name) for name in limits},
        "accepts": {"types": TYPES, "suffixes": list_suffixes()},
    }
