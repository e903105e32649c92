"""Models by their names, as requests use them and answers tell them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from core.errors import UserError, closest
from serving.errors import Refusal
from serving.listing import Entry, Listing
from serving.repository import given_folders
from serving.settings import Settings


def entry_in(listing: Listing, name: str, version: str | None = None) -> Entry:
    """Returns an entry of ``listing`` by its name, and its version or the one that answers.

    Raises:
        Refusal: there is none.
    """
    entry = listing.keys.get((name, version or listing.current.get(name, "")))
    if entry is None:
        raise unknown_model(listing, name, version)
    return entry


def unknown_model(listing: Listing, name: str, version: str | None) -> Refusal:
    """Returns the refusal of a request that names no model of ``listing``."""
    if name not in listing.current:
        name = name[:80]
        hint = closest(name, list(listing.current))
        return Refusal(404, "unknown_model", f"no model {name!r}: {hint}")
    versions = [entry.version for entry in listing.entries if entry.name == name]
    wanted = str(version)[:80]
    hint = closest(wanted, versions)
    return Refusal(404, "unknown_model", f"no version {wanted!r} of {name}: {hint}")


def told(error: UserError, settings: Settings, entries: Iterable[Entry]) -> str:
    """Returns what clients are told of ``error``: not where ``entries`` and other models lie."""
    text = str(error)
    for entry in entries:
        text = re.sub(rf"{re.escape(str(entry.artifact))}(?![\w.-])", entry.reference, text)
    above = [home.parent for _, home in given_folders(settings).values()]
    if settings.repository is not None:
        above.append(settings.repository.absolute())
    for folder in above:
        text = text.replace(f"{folder}/", "")
    return text
