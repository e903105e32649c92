"""Changes of the list of models that a request asks for."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request

from artifact.artifact import MANIFEST
from core.errors import UserError, closest
from serving.access_log import audit
from serving.administration import Administration
from serving.answering import read_in_time
from serving.errors import Refusal
from serving.listing import Entry, Listing
from serving.naming import entry_in
from serving.repository import (
    ALLOWED,
    check_lone,
    entry_of,
    given_folders,
    is_name,
    version_folders,
)
from serving.settings import PREFIX, Settings
from serving.state import Report
from serving.uploads import read_body

MOST_BYTES = 4096  # of a request that changes the list
Make = Callable[[Listing], Listing]
T = TypeVar("T")


def check_allowed(settings: Settings) -> None:
    """Raises Refusal if nobody may change the models."""
    if not settings.needs_token:
        detail = (
            f"the models can be changed only if a token is set: {PREFIX}TOKEN or {PREFIX}TOKENS"
        )
        raise Refusal(403, "no_token", detail)


async def read_small(request: Request, settings: Settings, kind: TypeAdapter[T]) -> T:
    """Returns the JSON of a small body; an empty one stands for an empty object.

    Raises:
        Refusal: it is not what is expected, too large, or does not come in time.
    """
    body = await read_in_time(read_body(request, MOST_BYTES), settings.deadline_ms / 1e3)
    try:
        return kind.validate_json(body or b"{}", strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        detail = f"{place + ': ' if place else ''}{first['msg']}"
        raise Refusal(400, "bad_json", f"the JSON is not as expected: {detail}") from None


async def read_change(request: Request, settings: Settings, kind: TypeAdapter[T]) -> T:
    """Returns the JSON of an administrator's request, which its line will have, too.

    Raises:
        Refusal: nobody may change the models, or as :func:`read_small`.
    """
    check_allowed(settings)
    wanted = await read_small(request, settings, kind)
    request.scope["change"] = wanted
    return wanted


async def administer(request: Request, administration: Administration, make: Make) -> list[Report]:
    """Changes the list of models for ``request``; returns how far each worker has followed."""
    audit(request.scope, None)  # should this process end before the answer
    return await administration.change(make)


def loading(
    settings: Settings, name: str, version: str | None, *, current: bool, alone: bool = False
) -> Make:
    """Returns what loads a model, or loads it again, as it lies on the disk.

    Args:
        settings: where models are looked for, and how many there may be.
        name: its name.
        version: its version; None for the one that answers, or in the repository would.
        current: whether it answers for its name from then on.
        alone: whether it takes the place of the version that did.
    """

    def make(listing: Listing) -> Listing:
        entry = _found(settings, listing, name, version)
        old = listing.current.get(name)
        changed = listing.having(entry, current=current)
        if alone and old not in (None, entry.version):
            changed = changed.without(name, str(old))
        if len(changed.entries) > max(settings.max_models, len(listing.entries)):
            raise UserError(
                f"{settings.max_models} models are loaded, as many as are allowed: unload "
                f"one, or set {PREFIX}MAX_MODELS"
            )
        check_lone(changed, settings)
        return changed

    return make


def unloading(name: str) -> Make:
    """Returns what unloads all versions of a model."""

    def make(listing: Listing) -> Listing:
        answering = entry_in(listing, name)
        others = [each for each in listing.entries if each.name == name and each != answering]
        for entry in (*others, answering):
            listing = listing.without(*entry.key)
        return listing

    return make


def _found(settings: Settings, listing: Listing, name: str, version: str | None) -> Entry:
    """Returns the entry of a model as it lies on the disk now.

    It is looked for in the repository, among the models of the list, and in the folders of those
    that were given at the start, so that a request can name no other folder of this machine.
    """
    folders: dict[str, Path] = {
        entry.version: entry.artifact for entry in listing.entries if entry.name == name
    }
    current = listing.current.get(name)
    repository = settings.repository
    if repository is not None and is_name(name):
        folder = repository.absolute() / name
        for each in version_folders(folder):
            folders.setdefault(each.name, each)
        if version is None and folder.is_dir():
            entry = entry_of(folder, settings, name)
            folders.setdefault(entry.version, entry.artifact)
            current = entry.version
    given = given_folders(settings)
    if name in given:
        where, home = given[name]
        for each in version_folders(home):
            folders.setdefault(each.name, each)
        if current is None or (where / MANIFEST).exists():
            entry = entry_of(where, settings, name)
            folders.setdefault(entry.version, entry.artifact)
            current = current or entry.version
    if not folders:
        known = sorted({*listing.current, *given})
        raise UserError(
            f"no model {name[:80]!r} in the list"
            + (" or the repository" if repository else "")
            + f": {closest(name, known)}"
        )
    wanted = version or current or max(folders)
    if wanted not in folders:
        raise UserError(f"no version {wanted[:80]!r} of {name}: {closest(wanted, list(folders))}")
    if not is_name(wanted):  # it stands in paths and in headers
        raise UserError(f"{name}: {wanted[:80]!r} cannot be a version: use {ALLOWED}")
    entry = entry_of(folders[wanted], settings, name)
    return dataclasses.replace(entry, version=wanted)
