"""The HTTP interface as a Starlette application.

It is mounted into the BentoML service, which adds ``/healthz`` and ``/readyz``. A mounted
application answers a request in half the time of BentoML's own typed endpoints.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import warnings
from collections.abc import AsyncGenerator, Awaitable, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.batcher import QueueFull
from serving.guards import Counted, Guarded
from serving.images import Upload
from serving.metrics import exposition
from serving.openapi import describe_api
from serving.pages import page_routes
from serving.predictor import Answer, Predictor, unwrap
from serving.slots import Slots, busy
from serving.uploads import BATCH, Refusal, read_image, read_images

T = TypeVar("T")


def create_app(predictor: Predictor) -> Starlette:
    """Returns the application that answers with ``predictor``; its lifespan opens and closes it."""
    # What is odd about an upload is for its sender. Python even keeps each warning's text for ever.
    warnings.filterwarnings("ignore", module="PIL")
    logging.getLogger("python_multipart").setLevel(logging.CRITICAL)
    settings, artifact = predictor.settings, predictor.artifact
    labels, seconds = len(artifact.labels), settings.deadline_ms / 1e3
    slots = Slots(settings.queue_size + settings.threads)
    facts, api = _facts(predictor), describe_api(settings, artifact)

    async def predict(request: Request) -> Response:
        top_k = _top_k(request, settings.top_k, labels)
        with slots.taken():
            data = await _read(read_image(request, settings.max_bytes), seconds)
            (found,) = await _predict(request, predictor, [Upload(data, top_k)], seconds)
        if isinstance(found, Refusal):
            raise found
        timing = ", ".join(f"{stage};dur={ms}" for stage, ms in found["timings_ms"].items())
        return JSONResponse({**found, **predictor.name}, headers={"server-timing": timing})

    async def predict_batch(request: Request) -> Response:
        top_k = _top_k(request, settings.top_k, labels)
        with slots.taken(BATCH):  # as many as it may hold bytes
            read = read_images(request, settings.max_bytes, settings.max_images)
            uploads = [Upload(data, top_k) for data in await _read(read, seconds)]
            found = await _predict(request, predictor, uploads, seconds)
        results = [_body(each) if isinstance(each, Refusal) else each for each in found]
        return JSONResponse({"results": results, **predictor.name})

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

    return Starlette(
        routes=[
            Route("/predict", predict, methods=["POST"]),
            Route("/predict_batch", predict_batch, methods=["POST"]),
            Route("/model", model, methods=["GET"]),
            Route("/openapi.json", openapi, methods=["GET"]),
            Route("/metrics", metrics, methods=["GET"]),
            *page_routes(),
        ],
        middleware=[Middleware(Counted), Middleware(Guarded, token=settings.token)],
        exception_handlers={Refusal: _refuse, HTTPException: _refuse_http, Exception: _fail},
        lifespan=lifespan,
    )


async def _read(body: Awaitable[T], seconds: float) -> T:
    """Returns what ``body`` reads, if it comes in time: a slow client must not keep its place."""
    try:
        async with asyncio.timeout(seconds):
            return await body
    except TimeoutError:
        raise Refusal(408, "slow_upload", f"the upload did not end within {seconds:g} s") from None


async def _predict(
    request: Request, predictor: Predictor, uploads: Sequence[Upload], seconds: float
) -> list[Answer | Refusal]:
    """Returns the answers, unless time runs out or the client hangs up: then nobody waits."""
    try:
        work = predictor.predict(uploads)
    except QueueFull:
        raise busy() from None
    gone = asyncio.create_task(_hung_up(request))
    either: set[asyncio.Future[Any]] = {work, gone}
    try:
        done, _ = await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if work in done:
            return unwrap(work.result())
    finally:
        work.cancel()
        gone.cancel()
    if gone in done:
        raise Refusal(400, "incomplete", "the connection closed before the answer")
    raise Refusal(504, "too_late", f"no answer within {seconds:g} s; the service is overloaded")


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _facts(predictor: Predictor) -> Answer:
    """Returns what ``GET /model`` answers: the manifest without where it lies on this machine."""
    settings, artifact = predictor.settings, predictor.artifact
    facts = dataclasses.asdict(artifact)
    for private in ("path", "source"):
        del facts[private]
    limits = ("max_bytes", "max_pixels", "max_images")
    return {
        **facts,
        "runtime": settings.runtime,
        "limits": {name: getattr(settings, name) for name in limits},
    }


def _top_k(request: Request, default: int, labels: int) -> int:
    text = request.query_params.get("top_k")
    if text is None:
        return min(default, labels)
    if not (text.isascii() and text.isdecimal() and len(text) < 10 and 1 <= int(text) <= labels):
        raise Refusal(
            422, "bad_top_k", f"top_k is {text[:20]!r}: it must be a whole number in 1..{labels}"
        )
    return int(text)


def _body(refusal: Refusal) -> dict[str, str]:
    return {"error": refusal.code, "detail": refusal.detail}


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return JSONResponse(_body(error), error.status, error.headers)


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = error.detail.lower().replace(" ", "_")
    return JSONResponse(
        {"error": code, "detail": f"{request.method} {request.url.path}: {error.detail}"},
        error.status_code,
        error.headers,
    )


async def _fail(request: Request, error: Exception) -> Response:
    # Starlette raises the exception again after this answer, so the server's log has it all.
    return JSONResponse(
        {"error": "internal", "detail": "the service failed; its log says why"}, 500
    )
