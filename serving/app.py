"""The HTTP interface as a Starlette application: ``POST /predict`` and ``GET /model``.

It is mounted into the BentoML service, which adds ``/healthz``, ``/readyz`` and ``/metrics``.
A mounted application answers a request in half the time of BentoML's own typed endpoints.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from serving.predictor import Answer, Predictor
from serving.uploads import Refusal, read_image


def create_app(predictor: Predictor) -> Starlette:
    """Returns the application that answers with ``predictor``; its lifespan opens and closes it."""
    settings, artifact = predictor.settings, predictor.artifact
    facts = _facts(predictor)

    async def predict(request: Request) -> JSONResponse:
        top_k = _top_k(request, settings.top_k, len(artifact.labels))
        data = await read_image(request, settings.max_bytes)
        return JSONResponse(await predictor.predict(data, top_k))

    async def model(request: Request) -> JSONResponse:
        return JSONResponse(facts)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
        with predictor:
            yield

    return Starlette(
        routes=[
            Route("/predict", predict, methods=["POST"]),
            Route("/model", model, methods=["GET"]),
        ],
        exception_handlers={Refusal: _refuse, HTTPException: _refuse_http, Exception: _fail},
        lifespan=lifespan,
    )


def _facts(predictor: Predictor) -> Answer:
    """Returns what ``GET /model`` answers: the manifest without where it lies on this machine."""
    settings, artifact = predictor.settings, predictor.artifact
    facts = dataclasses.asdict(artifact)
    for private in ("path", "source"):
        del facts[private]
    return {
        **facts,
        "runtime": settings.runtime,
        "limits": {"max_bytes": settings.max_bytes, "max_pixels": settings.max_pixels},
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


async def _refuse(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)
    return _error(error.status, error.code, error.detail)


async def _refuse_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    code = error.detail.lower().replace(" ", "_")
    return JSONResponse(
        {"error": code, "detail": f"{request.method} {request.url.path}: {error.detail}"},
        error.status_code,
        error.headers,
    )


async def _fail(request: Request, error: Exception) -> JSONResponse:
    # Starlette raises the exception again after this answer, so the server's log has it all.
    return _error(500, "internal", "the service failed; its log says why")


def _error(status: int, code: str, detail: str) -> JSONResponse:
    return JSONResponse({"error": code, "detail": detail}, status)
