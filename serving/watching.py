"""Watches a repository: models that come, change or go in the folder do so in the service."""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from artifact.opening import open_artifact, open_runtime
from core.errors import UserError
from serving.listing import Entry, Listing
from serving.repository import check, entry_of, folders_of
from serving.settings import Settings
from serving.state import Locked, State

Stamp = tuple[object, ...]
Found = dict[str, tuple[Path, Stamp]]


class Watch:
    """What was last seen in the repository of ``settings``; ``state`` gets the changes.

    A change counts once two looks see the same: a folder that is being copied is left alone. Before
    a model is listed its files are checked, and its golden batch in a process of its own, which
    leaves no runtime behind in the process that forks the workers.
    """

    def __init__(self, settings: Settings, state: State) -> None:
        assert settings.repository is not None
        self._settings = settings
        self._state = state
        self._repository = settings.repository
        self._taken = self._before = self._scan()

    def look(self) -> None:
        """Looks once, and lists what has changed."""
        try:
            found = self._scan()
        except (OSError, UserError) as error:
            _say(f"the repository cannot be watched: {error}")
            return
        settled = found == self._before
        self._before = found
        if not settled or found == self._taken:
            return
        try:
            with self._state.locked():
                self._list(found)
        except Locked:  # a worker changes the list: at the next look
            return
        self._taken = found

    def _list(self, found: Found) -> None:
        before = listing = self._state.read()
        for name, (folder, stamp) in found.items():
            if self._taken.get(name) != (folder, stamp):
                listing = self._with(listing, name, folder)
        for name in self._taken.keys() - found.keys():
            listing = self._without(listing, name)
        if listing.entries != before.entries:
            self._state.write(listing)

    def _with(self, listing: Listing, name: str, folder: Path) -> Listing:
        try:
            entry = entry_of(folder, self._settings, name)
            check(entry, self._settings)
            _prove(entry, self._settings)
            if entry.key not in listing.keys and len(listing.entries) >= self._settings.max_models:
                raise UserError(f"{name}: {self._settings.max_models} models are loaded already")
        except UserError as error:
            _say(f"{error}; it is not taken")
            return listing
        old = listing.current.get(name)
        listing = listing.having(entry, current=True)
        if old is not None and old != entry.version:
            listing = listing.without(name, old)
        _say(f"{entry.reference} is taken from {self._repository}", kind="models")
        return listing

    def _without(self, listing: Listing, name: str) -> Listing:
        for entry in reversed(listing.entries):  # the version that answers after the others
            if entry.name == name and self._repository.absolute() in entry.artifact.parents:
                try:
                    listing = listing.without(*entry.key)
                except UserError as error:
                    _say(f"{entry.artifact} is gone: {error}; it goes on")
                else:
                    _say(f"{entry.reference} is gone from {self._repository}", kind="models")
        return listing

    def _scan(self) -> Found:
        return {
            name: (folder, _stamp(folder)) for name, folder in folders_of(self._repository).items()
        }


def _stamp(folder: Path) -> Stamp:
    """Returns what differs once a file of ``folder`` is another, or has other content."""
    found = []
    for path in sorted(folder.rglob("*")):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        found.append((str(path), status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)


def _prove(entry: Entry, settings: Settings) -> None:
    """Runs the golden batch in a process of its own.

    Raises:
        UserError: it does not come out right, or the process ended by itself.
    """
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(
        target=_run_golden, args=(theirs, entry, settings)
    )
    process.start()
    theirs.close()
    try:
        why = ours.recv()
    except EOFError:
        why = f"{entry.artifact}: the process that ran its golden batch ended by itself"
    finally:
        process.join()
        ours.close()
    if why:
        raise UserError(why)


def _run_golden(answer: Connection, entry: Entry, settings: Settings) -> None:
    try:
        artifact = open_artifact(entry.artifact, allow_unverified=settings.allow_unverified)
        with open_runtime(entry.runtime, artifact, threads=entry.call_threads):
            pass
    except UserError as error:
        answer.send(str(error))
    else:
        answer.send("")
    os._exit(0)  # not through what the parent has open


def _say(what: str, kind: str = "error") -> None:
    print(f"{kind}: {what}", file=sys.stderr, flush=True)
