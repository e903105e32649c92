"""The routes of several models: their list, their predictions, and how the list is changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import TypeAdapter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from serving.administration import Administration, shown
from serving.answering import answer_image, answer_images
from serving.answers import Error, Facts
from serving.changes import MOST_BYTES, administer, loading, read_change
from serving.listing import Listing, Trial
from serving.memory import resident_bytes
from serving.model_answers import Changed, LoadRequest, ModelList, TrialRequest, VersionRequest
from serving.models import Models
from serving.naming import entry_in
from serving.predict_routes import predict_routes
from serving.routes import Handler, Reply, Route
from serving.served import Served
from serving.trials import Canary, Shadow

_LOAD: TypeAdapter[LoadRequest] = TypeAdapter(LoadRequest)
_TRIAL: TypeAdapter[TrialRequest] = TypeAdapter(TrialRequest)
_VERSION: TypeAdapter[VersionRequest] = TypeAdapter(VersionRequest)


def list_models(models: Models) -> dict[str, Any]:
    """Returns the response of ``GET /models``."""
    return {
        "default": models.listing.default,
        "revision": models.listing.revision,
        "models": [_describe(models, served) for served in models.all],
        "failed": models.failed,
        "memory": {
            "models": models.bytes,
            "limit": models.settings.model_memory_mb << 20,
            "process": resident_bytes(),
        },
    }


def _describe(models: Models, served: Served) -> dict[str, Any]:
    artifact, entry = served.predictor.artifact, served.entry
    return {
        "name": entry.name,
        "version": entry.version,
        "current": models.is_current(served),
        "default": served is models.default,
        "canary": _share(models.canary, served),
        "shadow": _share(models.shadow, served),
        "model": artifact.model,
        "data": artifact.data,
        "precision": artifact.precision,
        "format": artifact.format,
        "runtime": entry.runtime,
        "labels": len(artifact.labels),
        "bytes": served.bytes,
    }


def _share(trial: Canary | Shadow | None, served: Served) -> float:
    return trial.share if trial is not None and trial.served is served else 0.0


def model_routes(models: Models, administration: Administration) -> list[Route]:
    """Returns the routes below ``/models``; ``administration`` changes ``models``."""

    def named(request: Request) -> Served:
        return models.find(request.path_params["name"], request.path_params.get("version"))

    async def index(request: Request) -> Response:
        return JSONResponse(list_models(models))

    async def facts(request: Request) -> Response:
        return JSONResponse(named(request).facts)

    async def single(request: Request) -> Response:
        return await answer_image(named(request), request)

    async def several(request: Request) -> Response:
        return await answer_images(named(request), request)

    unknown = Reply("No such model, or no such version of it", Error)
    routes = [
        Route(
            "/models",
            index,
            summary="The loaded models, and their memory",
            replies={200: Reply("The models", ModelList)},
        )
    ]
    for prefix in ("/models/{name}", "/models/{name}/versions/{version}"):
        routes += [
            Route(
                prefix,
                facts,
                summary="What a model is: manifest, labels, costs, gates, limits",
                replies={200: Reply("The facts", Facts), 404: unknown},
            ),
            *(
                dataclasses.replace(route, replies={**route.replies, 404: unknown})
                for route in predict_routes(
                    models.default.predictor, single, several, models.most_labels, prefix
                )
            ),
        ]
    return [*routes, *_changes(models, administration)]


def _changes(models: Models, administration: Administration) -> list[Route]:
    settings = models.settings

    async def change(request: Request, make: Any) -> Response:
        reports = await administer(request, administration, make)
        return JSONResponse({**list_models(models), "workers": shown(reports)})

    async def load(request: Request) -> Response:
        wanted = await read_change(request, settings, _LOAD)
        name, version = request.path_params["name"], wanted.get("version")
        current = wanted.get("current", False)
        return await change(request, loading(settings, name, version, current=current))

    async def unload(request: Request) -> Response:
        wanted = await read_change(request, settings, _VERSION)
        key = request.path_params["name"], wanted.get("version")
        return await change(request, lambda listing: listing.without(*entry_in(listing, *key).key))

    async def promote(request: Request) -> Response:
        wanted = await read_change(request, settings, _VERSION)
        key = request.path_params["name"], wanted.get("version")
        return await change(
            request, lambda listing: listing.promoting(*entry_in(listing, *key).key)
        )

    async def rollback(request: Request) -> Response:
        wanted = await read_change(request, settings, _VERSION)
        key = request.path_params["name"], wanted.get("version")
        return await change(
            request, lambda listing: listing.rolling_back(*entry_in(listing, *key).key)
        )

    def tried(kind: Literal["canary", "shadow"]) -> Handler:
        async def start(request: Request) -> Response:
            wanted = await read_change(request, settings, _TRIAL)

            def make(listing: Listing) -> Listing:
                entry = entry_in(listing, request.path_params["name"], wanted.get("version"))
                trial = Trial(name=entry.name, version=entry.version, share=wanted["share"])
                return listing.trying(kind, trial)

            return await change(request, make)

        return start

    refusals = {
        400: "Not the JSON that is expected",
        403: "The service has no token, so nobody may change it, or this one may not",
        404: "No such model, or no such version of it",
        408: "The upload did not end in time",
        409: "The change is not possible, or the model cannot be loaded; all is as before",
        413: f"Over {MOST_BYTES} bytes",
        415: "Another content encoding than gzip",
        500: "A worker did not follow",
    }
    replies = {status: Reply(text, Error) for status, text in refusals.items()}
    replies[200] = Reply("The models after the change, in all workers", Changed)
    kinds: Sequence[tuple[str, Any, str, Any]] = [
        ("load", load, "Load a model of the repository, or load it again", LoadRequest),
        ("unload", unload, "Unload a version of a model", VersionRequest),
        ("promote", promote, "Let a version answer for its model, and by default", VersionRequest),
        ("canary", tried("canary"), "Let a model answer a share of the requests", TrialRequest),
        ("shadow", tried("shadow"), "Ask a model, too, and compare its answers", TrialRequest),
        ("rollback", rollback, "End a trial, or return to the default before", VersionRequest),
    ]
    return [
        Route(
            f"/models/{{name}}/{verb}",
            handler,
            method="POST",
            admin=True,
            summary=summary,
            takes="JSON; without a version, that which answers",
            body={"application/json": kind},
            body_required=kind is TrialRequest,
            replies=replies,
        )
        for verb, handler, summary, kind in kinds
    ]
