"""Triton's extension for model repositories, over HTTP: what there is, loading and unloading.

https://github.com/triton-inference-server/server, docs/protocol/extension_model_repository.md
"""

from __future__ import annotations

import asyncio
import reprlib
from typing import Any, NoReturn, NotRequired

from pydantic import ConfigDict, TypeAdapter, with_config
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from typing_extensions import TypedDict

from core.errors import UserError
from serving.administration import Administration
from serving.changes import Make, administer, loading, read_change, read_small, unloading
from serving.errors import Refusal
from serving.inference_protocol import in_form
from serving.models import Models
from serving.naming import told
from serving.repository import entry_of, folders_of, given_folders
from serving.routes import Route

_CLOSED = ConfigDict(extra="forbid")
_DEPENDENTS = "unload_dependents"  # there are none


@with_config(_CLOSED)
class _Index(TypedDict):
    ready: NotRequired[bool]


@with_config(_CLOSED)
class _Change(TypedDict):
    parameters: NotRequired[dict[str, Any]]


_INDEX: TypeAdapter[_Index] = TypeAdapter(_Index)
_CHANGE: TypeAdapter[_Change] = TypeAdapter(_Change)


def repository_routes(models: Models, administration: Administration) -> list[Route]:
    """Returns the routes below ``/v2/repository``."""
    settings = models.settings

    async def index(request: Request) -> Response:
        wanted = await read_small(request, settings, _INDEX)
        return JSONResponse(await list_repository(models, only_ready=wanted.get("ready", False)))

    async def load(request: Request) -> Response:
        wanted = await read_change(request, settings, _CHANGE)
        make = loading_all(models, request.path_params["name"], wanted.get("parameters", {}))
        await administer(request, administration, make)
        return Response()

    async def unload(request: Request) -> Response:
        wanted = await read_change(request, settings, _CHANGE)
        make = unloading_all(request.path_params["name"], wanted.get("parameters", {}))
        await administer(request, administration, make)
        return Response()

    changed = "/v2/repository/models/{name}"
    return [
        Route("/v2/repository/index", in_form(index), method="POST"),
        Route(f"{changed}/load", in_form(load), method="POST", admin=True),
        Route(f"{changed}/unload", in_form(unload), method="POST", admin=True),
    ]


async def list_repository(models: Models, *, only_ready: bool) -> list[dict[str, str]]:
    """Returns the loaded models, and without ``only_ready`` those that could be loaded, too."""
    failed = dict(models.failed)
    listed = []
    for served in models.all:
        name, version = served.entry.key
        reason = failed.pop(served.entry.reference, "")
        listed.append({"name": name, "version": version, "state": "READY", "reason": reason})
    if only_ready:
        return listed
    for reference, reason in failed.items():
        name, _, version = reference.partition(":")
        listed.append(_absent(name, version, reason))
    known = {each["name"] for each in listed}
    return listed + await asyncio.to_thread(_others, models, known)


def _others(models: Models, known: set[str]) -> list[dict[str, str]]:
    """Returns the models that a request could load, other than those ``known``."""
    settings = models.settings
    folders = {name: where for name, (where, _) in given_folders(settings).items()}
    if settings.repository is not None:
        try:
            folders |= folders_of(settings.repository)
        except UserError as error:
            raise Refusal(409, "not_possible", told(error, settings, [])) from None
    listed = []
    for name, folder in sorted(folders.items()):
        if name in known:
            continue
        try:
            listed.append(_absent(name, entry_of(folder, settings, name).version, "unloaded"))
        except UserError as error:
            listed.append(_absent(name, "", told(error, settings, [])))
    return listed


def _absent(name: str, version: str, reason: str) -> dict[str, str]:
    return {"name": name, "version": version, "state": "UNAVAILABLE", "reason": reason}


def loading_all(models: Models, name: str, parameters: dict[str, Any]) -> Make:
    """Returns what loads a model, in the place of the version that answered for its name.

    Raises:
        Refusal: there are parameters; an artifact is loaded as it is.
    """
    if parameters:
        _refuse(parameters, "a model is loaded as it lies on the disk: send no parameters")
    return loading(models.settings, name, None, current=True, alone=True)


def unloading_all(name: str, parameters: dict[str, Any]) -> Make:
    """Returns what unloads all versions of a model.

    Raises:
        Refusal: there are other parameters than Triton's.
    """
    if parameters.keys() - {_DEPENDENTS}:
        _refuse(parameters, f"there is {_DEPENDENTS}, and no model depends on another")
    return unloading(name)


def _refuse(parameters: dict[str, Any], allowed: str) -> NoReturn:
    detail = f"parameters are {reprlib.repr(list(parameters))}: {allowed}"
    raise Refusal(400, "bad_parameters", detail)
