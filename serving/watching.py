"""Watches a repository: models that come, change or go in the folder do so in the service."""

from __future__ import annotations

import sys
from pathlib import Path

from artifact.store import PICK_FILE
from core.errors import UserError
from serving.listing import Listing
from serving.proving import Proof
from serving.repository import check_lone, entry_of, folders_of
from serving.settings import Settings
from serving.state import Locked, State

Stamp = tuple[object, ...]
Found = dict[str, tuple[Path, Stamp]]
Change = tuple[str, Path, Stamp]  # name, folder of the version, and what it is like


class Watch:
    """What was last seen in the repository of ``settings``; ``state`` gets the changes.

    A change counts once two looks see the same: a folder that is being copied is left alone. Before
    a model is listed its files are checked and its golden batch is run in a process of its own,
    which leaves no runtime behind in the process that forks the workers. No look waits for that.
    """

    def __init__(self, settings: Settings, state: State) -> None:
        assert settings.repository is not None
        self._settings = settings
        self._state = state
        self._repository = settings.repository
        self._taken = self._before = self._scan()
        self._proofs: dict[Change, Proof] = {}
        self._trouble = ""  # why the last look failed
        self._lines: list[str] = []  # what is told of a change once it is listed

    @property
    def is_proving(self) -> bool:
        """Returns whether a golden batch is running."""
        return any(not proof.is_done for proof in self._proofs.values())

    def look(self) -> None:
        """Looks once, and lists what has changed."""
        try:
            found = self._scan()
        except (OSError, UserError) as error:
            self._fail(f"the repository cannot be watched: {error}")
            return
        settled = found == self._before
        self._before = found
        changes = [(name, *seen) for name, seen in found.items() if self._taken.get(name) != seen]
        for change in self._proofs.keys() - set(changes):  # it has changed again
            self._proofs.pop(change).stop()
        if found == self._taken:
            self._trouble = ""
        if not settled or found == self._taken:
            return
        for change in changes:
            if change not in self._proofs:
                self._proofs[change] = self._proof(*change[:2])
        if self.is_proving:
            return
        try:
            with self._state.locked():
                self._list(found)
        except Locked:  # a worker changes the list: at the next look
            return
        except UserError as error:  # it cannot be written: tried again, with proofs anew
            self._fail(str(error))
        else:
            self._taken, self._trouble = found, ""
            for line in self._lines:
                print(line, file=sys.stderr, flush=True)
        self._proofs = {}

    def _fail(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            print(f"error: {trouble}", file=sys.stderr, flush=True)

    def _proof(self, name: str, folder: Path) -> Proof:
        return Proof(lambda: entry_of(folder, self._settings, name), self._settings)

    def _list(self, found: Found) -> None:
        self._lines = []
        before = listing = self._state.read()
        for (name, *_), proof in self._proofs.items():
            listing = self._with(listing, name, proof)
        for name in self._taken.keys() - found.keys():
            listing = self._without(listing, name)
        if listing.entries != before.entries:
            self._state.write(listing)

    def _with(self, listing: Listing, name: str, proof: Proof) -> Listing:
        try:
            entry = proof.entry()
            old = listing.current.get(name)
            changed = listing.having(entry, current=True)
            if old is not None and old != entry.version:
                changed = changed.without(name, old)
            check_lone(changed, self._settings)
            most = self._settings.max_models
            if len(changed.entries) > max(most, len(listing.entries)):
                raise UserError(f"{name}: {most} models are loaded already")
        except UserError as error:
            self._lines.append(f"error: {error}; it is not taken")
            return listing
        self._lines.append(f"models: {entry.reference} is taken from {self._repository}")
        return changed

    def _without(self, listing: Listing, name: str) -> Listing:
        for entry in reversed(listing.entries):  # the version that answers after the others
            if entry.name == name and self._repository.absolute() in entry.artifact.parents:
                try:
                    listing = listing.without(*entry.key)
                except UserError as error:
                    self._lines.append(f"error: {entry.artifact} is gone: {error}; it goes on")
                else:
                    line = f"models: {entry.reference} is gone from {self._repository}"
                    self._lines.append(line)
        return listing

    def _scan(self) -> Found:
        return {
            name: (folder, _stamp(folder)) for name, folder in folders_of(self._repository).items()
        }


def _stamp(folder: Path) -> Stamp:
    """Returns what differs once a file of ``folder``, or the pick beside it, is another."""
    found: list[tuple[object, ...]] = []
    for path in (folder.parent / PICK_FILE, *sorted(folder.rglob("*"))):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        except OSError as error:  # a loop of links, say: whether that matters, the proof shows
            found.append((str(path), error.errno))
            continue
        found.append((str(path), status.st_ino, status.st_size, status.st_mtime_ns))
    return tuple(found)
