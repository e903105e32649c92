"""The HTTP interface as a Starlette application.

It is mounted into the BentoML service, which adds ``/healthz`` and ``/readyz``. A mounted
application answers a request in half the time of BentoML's own typed endpoints.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import replace
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serving.administration import Administration
from serving.answering import answer_image, answer_images
from serving.answers import Facts
from serving.inference_protocol import protocol_routes
from serving.listing import Listing
from serving.metrics import exposition
from serving.model_routes import model_routes
from serving.models import Models
from serving.openapi import describe_api
from serving.pages import page_routes
from serving.predict_routes import predict_routes
from serving.predictor import Predictor
from serving.repository_protocol import repository_routes
from serving.routes import Reply, Route, bento_routes, middleware, wrap
from serving.state import State
from serving.tokens import Tokens
from serving.tracing import traced


def create_app(
    models: Models | Predictor, more: Sequence[Route] = (), state: State | None = None
) -> Starlette:
    """Returns the application around ``models``; its lifespan opens and closes them.

    Routes are answered in its middleware, which can be put around BentoML's application too.

    Args:
        models: classify the images; a lone predictor is the only model.
        more: further routes.
        state: the list of models that other processes share; None if there are none.
    """
    # Warnings about uploads do not concern the operator, and Python keeps their texts for ever.
    warnings.filterwarnings("ignore", module="PIL")
    if isinstance(models, Predictor):
        models = Models.alone(models)
    settings = models.settings
    administration = Administration(models, state)
    tokens = Tokens(settings.token, settings.tokens, settings.workers)
    outer = traced() if settings.tracing else ()
    described: Listing | None = None  # the models that the document is of
    api: dict[str, Any] = {}

    async def predict(request: Request) -> Response:
        return await answer_image(models.pick(request), request, models)

    async def predict_batch(request: Request) -> Response:
        return await answer_images(models.pick(request), request, models)

    async def model(request: Request) -> Response:
        return JSONResponse(models.default.facts)

    async def openapi(request: Request) -> Response:
        nonlocal described, api
        if models.listing is not described:  # other models have other labels
            described = models.listing
            api = describe_api(models.default.predictor, routes(), models.most_labels)
        return JSONResponse(api)

    async def metrics(request: Request) -> Response:
        return exposition()

    def over_grpc(app: Starlette) -> AbstractAsyncContextManager[None]:
        if not settings.grpc_port:
            return nullcontext()
        from serving.grpc_calls import Refusing
        from serving.grpc_routes import grpc_routes
        from serving.grpc_server import grpc_server

        own = replace(settings, root_path="", cors_origins=())
        if own.access_log != "0":
            own = replace(own, access_log="json")
        methods = grpc_routes(models, administration)
        *around, router = middleware(own, methods, tokens, outer)
        inside = wrap(app, [*around, Middleware(Refusing), router])
        return grpc_server(inside, methods, settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None, None]:
        with models:
            following = asyncio.create_task(administration.follow())
            try:
                async with over_grpc(app):
                    yield
            finally:
                following.cancel()
                await models.left()

    model_text = "What the service runs: manifest, labels, costs, gates, limits"
    metrics_text = "Figures for Prometheus"
    others = [
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

    def routes() -> list[Route]:
        predictor = models.default.predictor
        return [
            *predict_routes(predictor, predict, predict_batch, len(predictor.artifact.labels)),
            *model_routes(models, administration),
            *protocol_routes(models),
            *repository_routes(models, administration),
            *others,
        ]

    return Starlette(middleware=middleware(settings, routes(), tokens, outer), lifespan=lifespan)
