"""The list of models of a service: what they are called, where they lie, and which one answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from core.errors import UserError, closest


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A model of the list.

    Attributes:
        name: its name in paths and metrics.
        version: its version; several of one name may be loaded.
        artifact: folder of the artifact.
        runtime: what executes it.
        call_threads: CPU threads inside one call.
        digest: SHA-256 of its manifest, which holds those of all its files.
        answers: SHA-256 of its task and labels: what its answers can be.
    """

    name: str
    version: str
    artifact: Path
    runtime: str
    call_threads: int
    digest: str
    answers: str

    @property
    def key(self) -> tuple[str, str]:
        """Returns name and version."""
        return self.name, self.version

    @property
    def reference(self) -> str:
        """Returns ``name:version``."""
        return f"{self.name}:{self.version}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A model on trial: a canary or a shadow.

    Attributes:
        name: its name.
        version: its version.
        share: of the requests that name no model, in (0, 1].
    """

    name: str
    version: str
    share: float

    @property
    def key(self) -> tuple[str, str]:
        """Returns name and version."""
        return self.name, self.version


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The models of a service; never changed, but replaced by one with the next revision.

    Attributes:
        entries: the models, in the order in which they came.
        default: name of the model of the paths that name none.
        current: the version that answers for each name.
        canary: the model that answers a share of the requests that name none.
        shadow: the model that is asked, too.
        previous: name and version of the default before the last promotion.
        revision: how many changes led to it.
    """

    entries: tuple[Entry, ...]
    default: str
    current: dict[str, str] = field(default_factory=dict)
    canary: Trial | None = None
    shadow: Trial | None = None
    previous: tuple[str, str] | None = None
    revision: int = 0

    @classmethod
    def of(cls, entries: Iterator[Entry] | tuple[Entry, ...], default: str) -> Listing:
        """Returns a list in which the first version of each name answers for it.

        Raises:
            UserError: the same name and version come twice, or ``default`` is none of the names.
        """
        listing = cls(entries=(), default=default)
        for entry in entries:
            if entry.key in listing.keys:
                raise UserError(
                    f"two models are called {entry.reference}: give one another name, with "
                    f"NAME={entry.artifact}"
                )
            listing = listing.having(entry)
        if default not in listing.current:
            raise UserError(f"default is {default!r}: {closest(default, list(listing.current))}")
        return replace(listing, revision=0)

    @property
    def keys(self) -> dict[tuple[str, str], Entry]:
        """Returns the entries by name and version."""
        return {entry.key: entry for entry in self.entries}

    def differing(self, before: Listing) -> set[str]:
        """Returns which models are others than in ``before``, or have a part they had not.

        Returns:
            Each as ``name:version``; models that only left are not among them.
        """
        known = before.keys
        keys = {entry.key for entry in self.entries if known.get(entry.key) != entry}
        keys |= {key for _, key in self._parts() - before._parts()}
        return {f"{name}:{version}" for name, version in keys}

    def _parts(self) -> set[tuple[str, tuple[str, str]]]:
        parts = {("current", key) for key in self.current.items()}
        parts.add(("default", (self.default, self.current.get(self.default, ""))))
        for kind, trial in (("canary", self.canary), ("shadow", self.shadow)):
            if trial is not None:
                parts.add((kind, trial.key))
        return parts

    def having(self, entry: Entry, *, current: bool = False) -> Listing:
        """Returns the list with ``entry`` in the place of that of the same name and version.

        Args:
            entry: the model.
            current: whether it answers for its name from now on; the first of a name always does.

        Raises:
            UserError: the default and a model on trial would have other labels.
        """
        known = self.keys
        known[entry.key] = entry
        answering = dict(self.current)
        if current or entry.name not in answering:
            answering[entry.name] = entry.version
        return replace(
            self, entries=tuple(known.values()), current=answering, revision=self.revision + 1
        )._comparable()

    def without(self, name: str, version: str) -> Listing:
        """Returns the list without a model.

        Raises:
            UserError: the default answers by it, or its name does and has other versions.
        """
        left = tuple(entry for entry in self.entries if entry.key != (name, version))
        answering = dict(self.current)
        if answering.get(name) == version:
            if name == self.default:
                raise UserError(
                    f"{name}:{version} is the default: promote another model before it is unloaded"
                )
            if any(entry.name == name for entry in left):
                raise UserError(
                    f"{name}:{version} answers for {name}: unload its other versions first, or "
                    "load one of them as current"
                )
            del answering[name]
        listing = self._without_trials(name, version)
        if listing.previous == (name, version):
            listing = replace(listing, previous=None)
        return replace(listing, entries=left, current=answering, revision=self.revision + 1)

    def promoting(self, name: str, version: str) -> Listing:
        """Returns the list in which this version answers for its name, and this name by default.

        It is on trial no more. If it is the default already, a rollback leads where it did before.

        Raises:
            UserError: a model on trial has other labels.
        """
        default = self.default, self.current[self.default]
        return replace(
            self._without_trials(name, version),
            default=name,
            current={**self.current, name: version},
            previous=self.previous if default == (name, version) else default,
            revision=self.revision + 1,
        )._comparable()

    def trying(self, kind: Literal["canary", "shadow"], trial: Trial) -> Listing:
        """Returns the list with a model on trial; a share of 0 ends it.

        Raises:
            UserError: it is the default, or has other labels or another task.
        """
        if trial.key == (self.default, self.current[self.default]):
            raise UserError(f"{trial.name}:{trial.version} is the default: it cannot be the {kind}")
        now = {kind: trial if trial.share else None}
        tried = replace(self, **now, revision=self.revision + 1)  # type: ignore[arg-type]
        return tried._comparable()

    def rolling_back(self, name: str, version: str) -> Listing:
        """Returns the list in which a model is on trial no more, or no longer the default.

        Raises:
            UserError: it is neither, or what was the default before is not loaded any more.
        """
        listing = self._without_trials(name, version)
        if listing != self:
            return replace(listing, revision=self.revision + 1)
        if (name, version) != (self.default, self.current[self.default]):
            raise UserError(f"{name}:{version} is neither the default nor on trial")
        if self.previous is None:
            raise UserError(f"nothing was the default before {name}:{version}")
        return replace(self.promoting(*self.previous), previous=None)

    def _comparable(self) -> Listing:
        """Returns itself, in which no model on trial gives other answers than the default can."""
        entries = self.keys
        for kind, trial in (("canary", self.canary), ("shadow", self.shadow)):
            if trial is None:
                continue
            default = entries[self.default, self.current[self.default]]
            tried = entries[trial.key]
            if tried.answers != default.answers:
                raise incomparable(kind, tried, default)
        return self

    def _without_trials(self, name: str, version: str) -> Listing:
        key, canary, shadow = (name, version), self.canary, self.shadow
        return replace(
            self,
            canary=None if canary and canary.key == key else canary,
            shadow=None if shadow and shadow.key == key else shadow,
        )


def incomparable(kind: str, tried: Entry, default: Entry) -> UserError:
    """Returns why a model on trial would give other answers than the default can."""
    return UserError(
        f"{tried.reference} cannot be the {kind} of {default.reference}: its labels or "
        "its task are others, so clients would get answers they do not know; try a "
        "model with the same labels"
    )
