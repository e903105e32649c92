"""The list of models of a service: what they are called, where they lie, and which one answers."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import get_args

from artifact.answering import answering_of
from artifact.artifact import MANIFEST, format_of
from artifact.opening import check_runtime, open_artifact
from artifact.records import Precision
from artifact.runtimes.base import is_servable, servable_runtimes
from artifact.store import choose, read_pick
from core.errors import UserError, closest, first_line
from core.files import sha256
from serving.settings import PREFIX, Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(rf"[a-z_]+-({'|'.join(get_args(Precision))})|[0-9]+")  # such a folder is one
ALLOWED = "letters, digits, '.', '_' and '-', at most 128 of them"


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
    """

    name: str
    version: str
    artifact: Path
    runtime: str
    call_threads: int
    digest: str

    @property
    def key(self) -> tuple[str, str]:
        """Returns name and version."""
        return self.name, self.version

    @property
    def reference(self) -> str:
        """Returns ``name:version``."""
        return f"{self.name}:{self.version}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """The models of a service; never changed, but replaced by one with the next revision.

    Attributes:
        entries: the models, in the order in which they came.
        default: name of the model of the paths that name none.
        current: the version that answers for each name.
        revision: how many changes led to it.
    """

    entries: tuple[Entry, ...]
    default: str
    current: dict[str, str] = field(default_factory=dict)
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

    def having(self, entry: Entry, *, current: bool = False) -> Listing:
        """Returns the list with ``entry`` in the place of that of the same name and version.

        Args:
            entry: the model.
            current: whether it answers for its name from now on; the first of a name always does.
        """
        known = self.keys
        known[entry.key] = entry
        answering = dict(self.current)
        if current or entry.name not in answering:
            answering[entry.name] = entry.version
        return replace(
            self, entries=tuple(known.values()), current=answering, revision=self.revision + 1
        )

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
        return replace(self, entries=left, current=answering, revision=self.revision + 1)

    def promoting(self, name: str, version: str) -> Listing:
        """Returns the list in which this version answers for its name, and this name by default."""
        return replace(
            self,
            default=name,
            current={**self.current, name: version},
            revision=self.revision + 1,
        )


def entry_of(folder: Path, settings: Settings, name: str | None = None) -> Entry:
    """Returns the entry of the artifact that ``folder`` stands for; only its manifest is read.

    Without a name it is called by its folder, or where that is a version, such as ``onnx-int8`` or
    ``3``, by the folder above.

    Raises:
        UserError: no artifact, one that no server runs, or a name that cannot stand in a path.
    """
    choice = choose(folder)
    path = choice.artifact.absolute()
    spec = format_of(path)
    allowed = servable_runtimes(spec.name)
    runtime, threads = choice.runtime, choice.threads
    if path == settings.artifact.absolute():
        runtime, threads = settings.runtime, settings.call_threads
    if runtime is None and settings.runtime in allowed:
        runtime = settings.runtime
    if runtime is None:
        runtime = spec.proving_runtime if is_servable(spec.proving_runtime) else allowed[0]
    version = path.name if _VERSION.fullmatch(path.name) else "1"
    if name is None:
        name = path.parent.name if version == path.name else path.name
    if not _NAME.fullmatch(name):
        raise UserError(f"{folder}: {name!r} cannot be a model's name: use {ALLOWED}: NAME=FOLDER")
    return Entry(
        name=name,
        version=version,
        artifact=path,
        runtime=runtime,
        call_threads=threads or settings.call_threads,
        digest=sha256(path / MANIFEST),
    )


def check(entry: Entry, settings: Settings) -> None:
    """Checks that all files of a model are as they were made, and that it can run here.

    Raises:
        UserError: they are not, it cannot, or it cannot abstain and is to.
    """
    artifact = open_artifact(entry.artifact, allow_unverified=settings.allow_unverified)
    check_runtime(entry.runtime, artifact)
    answering_of(artifact, abstain=settings.abstain)  # refuses one that cannot abstain


def split_name(text: str) -> tuple[str | None, Path]:
    """Returns name and folder of ``[NAME=]FOLDER``."""
    name, _, folder = text.partition("=")
    if not folder or not _NAME.fullmatch(name):
        name, folder = "", text
    return name or None, Path(folder).expanduser()


def folders_of(repository: Path) -> dict[str, Path]:
    """Returns the artifact's folder of each model in ``repository``, by name.

    A model is a folder with versions: the highest number, else the one that was picked, else
    ``onnx-fp32``, else the first. A folder that is an artifact itself is a model, too.

    Raises:
        UserError: it is no folder, or cannot be read.
    """
    try:
        folders = sorted(path for path in repository.iterdir() if path.is_dir())
    except OSError as error:
        raise UserError(f"repository is {repository}: {first_line(error)}") from None
    found = {}
    for folder in folders:
        if not folder.name.startswith(".") and (version := _version_in(folder)):
            found[folder.name] = version
    return found


def version_folders(folder: Path) -> list[Path]:
    """Returns the versions of the model in ``folder``."""
    return sorted(
        path.parent for path in folder.glob(f"*/{MANIFEST}") if not path.parent.name.startswith(".")
    )


def _version_in(folder: Path) -> Path | None:
    if (folder / MANIFEST).exists():
        return folder
    versions = version_folders(folder)
    numbers = [path for path in versions if path.name.isdecimal()]
    if numbers:
        return max(numbers, key=lambda path: int(path.name))
    chosen = choose(folder).artifact
    if chosen in versions:
        return chosen
    return versions[0] if versions else None


def default_in(repository: Path, name: str | None) -> Path:
    """Returns the folder of the model ``name`` in ``repository``, else of the one picked in it.

    Without both it is the first by name.

    Raises:
        UserError: there is none.
    """
    folders = folders_of(repository)
    if not folders:
        raise UserError(f"repository is {repository}: it holds no model (docs/serving.md)")
    if name is not None:
        if name not in folders:
            raise UserError(f"default is {name!r}: {closest(name, list(folders))}")
        return folders[name]
    pick = read_pick(repository)
    return folders[min(folders)] if pick is None else repository / pick.artifact


def first_listing(settings: Settings) -> Listing:
    """Returns the models that ``settings`` name: the artifact, more of them, and a repository.

    What is broken in the repository is left out, with a line on stderr.

    Raises:
        UserError: one of them is no artifact, or two have the same name and version.
    """
    entries: dict[Path, Entry] = {}
    for text in settings.models:
        named, where = split_name(text)
        entry = entry_of(where, settings, named)
        entries[entry.artifact] = entry
    default = settings.artifact.absolute()
    if settings.repository is not None:
        for name, folder in folders_of(settings.repository).items():
            if folder.absolute() in entries:
                continue
            try:
                entry = entry_of(folder, settings, name)
                check(entry, settings)
            except UserError as error:
                print(f"error: {error}; {name} is left out", file=sys.stderr, flush=True)
            else:
                entries[entry.artifact] = entry
    if default not in entries:
        entries = {default: entry_of(default, settings), **entries}
    if len(entries) > settings.max_models:
        raise UserError(
            f"{len(entries)} models are more than max_models, {settings.max_models} "
            f"(set {PREFIX}MAX_MODELS)"
        )
    return Listing.of(tuple(entries.values()), entries[default].name)
