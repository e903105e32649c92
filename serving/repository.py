"""Finds the models that a service is started with: folders by name, and a folder of all of them."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import get_args

from artifact.answering import answering_of, can_abstain
from artifact.artifact import MANIFEST, Artifact, read_manifest, readable
from artifact.opening import check_runtime, open_artifact
from artifact.records import Precision
from artifact.runtimes.base import is_servable, servable_runtimes
from artifact.store import choose, read_pick
from core.errors import UserError, closest
from core.files import sha256
from serving.listing import Entry, Listing, Trial
from serving.settings import CARRIED, PREFIX, Settings

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(rf"[a-z_]+-({'|'.join(get_args(Precision))})|[0-9]+")  # such a folder is one
ALLOWED = "letters, digits, '.', '_' and '-', at most 128 of them"


def entry_of(folder: Path, settings: Settings, name: str | None = None) -> Entry:
    """Returns the entry of the artifact that ``folder`` stands for; only its manifest is read.

    Without a name it is called by its folder, or where that is a version, such as ``onnx-int8`` or
    ``3``, by the folder above. The one in a Bento is called by its manifest, as it was elsewhere.

    Raises:
        UserError: no artifact, one that no server runs, or a name that cannot stand in a path.
    """
    choice = choose(_version_in(folder) or folder)
    path = choice.artifact.absolute()
    manifest = read_manifest(path)
    spec = manifest.spec
    allowed = servable_runtimes(spec.name)
    runtime, threads = choice.runtime, choice.threads
    if path == settings.artifact.absolute():
        runtime, threads = settings.runtime, settings.call_threads
    if runtime is None and settings.runtime in allowed:
        runtime = settings.runtime
    if runtime is None:
        runtime = spec.proving_runtime if is_servable(spec.proving_runtime) else allowed[0]
    usual, version = _called(path, manifest)
    name = usual if name is None else name
    if not is_name(name):
        raise UserError(f"{folder}: {name!r} cannot be a model's name: use {ALLOWED}: NAME=FOLDER")
    return Entry(
        name=name,
        version=version,
        artifact=path,
        runtime=runtime,
        call_threads=threads or settings.call_threads,
        digest=_digest(path),
        answers=answers_of(manifest),
    )


def refreshed(entry: Entry) -> Entry:
    """Returns a model as its folder is now; it is called and run as before.

    Raises:
        UserError: there is no artifact any more.
    """
    answers = answers_of(read_manifest(entry.artifact))
    return replace(entry, digest=_digest(entry.artifact), answers=answers)


def _digest(path: Path) -> str:
    with readable(path):
        return sha256(path / MANIFEST)


def _called(path: Path, manifest: Artifact) -> tuple[str, str]:
    """Returns name and version of the artifact in ``path``, unless it is given another name."""
    if path == CARRIED:
        name = f"{Path(manifest.model).name}-{manifest.data}"
        return name, f"{manifest.format}-{manifest.precision}"
    if _VERSION.fullmatch(path.name):
        return path.parent.name, path.name
    return path.name, "1"


def answers_of(manifest: Artifact) -> str:
    """Returns a digest of what the answers can be."""
    texts = [manifest.task, *manifest.labels]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def check_given(folder: Path) -> None:
    """Checks that ``folder`` is there, and is not one of several models.

    Raises:
        UserError: it is not, or it is.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder")
    if _version_in(folder) is None and read_pick(folder) is None and folders_of(folder):
        raise UserError(f"{folder}: a folder of models: --repository {folder}")


def is_name(text: str) -> bool:
    """Returns whether a model can be called ``text``, which is then no path to elsewhere."""
    return _NAME.fullmatch(text) is not None


def check(entry: Entry, settings: Settings) -> None:
    """Checks that all files of a model are as they were made, and that it can run here.

    Raises:
        UserError: they are not, or it cannot.
    """
    artifact = open_artifact(entry.artifact, allow_unverified=settings.allow_unverified)
    check_runtime(entry.runtime, artifact)


def check_lone(listing: Listing, settings: Settings) -> None:
    """Checks that a lone model can abstain, where the service is to.

    Raises:
        UserError: it cannot.
    """
    if len(listing.entries) == 1:
        without_threshold(listing, settings)


def without_threshold(listing: Listing, settings: Settings) -> list[Entry]:
    """Returns the models that cannot abstain though the service is to.

    Raises:
        UserError: none of them can.
    """
    if not settings.abstain:
        return []
    manifests = [(entry, read_manifest(entry.artifact)) for entry in listing.entries]
    unable = [entry for entry, manifest in manifests if not can_abstain(manifest)]
    if len(unable) == len(manifests):
        answering_of(manifests[0][1], abstain=True)  # says why
    return unable


def split_name(text: str) -> tuple[str | None, Path]:
    """Returns name and folder of ``[NAME=]FOLDER``."""
    name, _, folder = text.partition("=")
    if not folder or not is_name(name):
        name, folder = "", text
    return name or None, Path(folder).expanduser()


def folders_of(repository: Path) -> dict[str, Path]:
    """Returns the artifact's folder of each model in ``repository``, by name.

    A model is a folder with versions: the highest number, else the one that was picked, else
    ``onnx-fp32``, else the first. A folder that is an artifact itself is a model, too. One that
    cannot be understood stands for itself: :func:`entry_of` says why.

    Raises:
        UserError: ``repository`` is no folder, or cannot be read.
    """
    try:
        folders = sorted(path for path in repository.iterdir() if path.is_dir())
    except OSError as error:
        why = "there is no such folder" if isinstance(error, FileNotFoundError) else error.strerror
        raise UserError(f"repository is {repository}: {why}") from None
    found = {}
    for folder in folders:
        if folder.name.startswith("."):
            continue
        try:
            version = _version_in(folder)
        except UserError:
            version = folder
        if version is not None:
            found[folder.name] = version
    return found


def version_folders(folder: Path) -> list[Path]:
    """Returns the versions of the model in ``folder``."""
    return sorted(
        path.parent for path in folder.glob(f"*/{MANIFEST}") if not path.parent.name.startswith(".")
    )


def _version_in(folder: Path) -> Path | None:
    """Returns the artifact that ``folder`` stands for; None if there is none.

    Raises:
        UserError: it cannot be read, or its pick cannot be understood.
    """
    with readable(folder):
        if (folder / MANIFEST).exists():
            return folder
        versions = version_folders(folder)
    numbers = [path for path in versions if path.name.isascii() and path.name.isdecimal()]
    if numbers:
        return max(numbers, key=lambda path: int(path.name))
    chosen = choose(folder).artifact
    if chosen in versions:
        return chosen
    return versions[0] if versions else None


def default_in(repository: Path, name: str | None) -> Path:
    """Returns the folder of the model ``name`` in ``repository``, else of the one picked in it.

    Without both it is the first by name that can be understood.

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
    if pick is not None:
        return repository / pick.artifact
    sound = [name for name, folder in folders.items() if os.path.exists(folder / MANIFEST)]
    return folders[min(sound or folders)]


def first_listing(settings: Settings) -> Listing:
    """Returns the models that ``settings`` name: the artifact, more of them, and a repository.

    What is broken in the repository is left out, with a line on stderr.

    Raises:
        UserError: one of them is no artifact, or two have the same name and version.
    """
    entries: list[Entry] = []
    for text in settings.models:
        named, where = split_name(text)
        entries.append(entry_of(where, settings, named))
    if settings.repository is not None:
        entries += _in_repository(settings, settings.repository, entries)
    path = settings.artifact.absolute()
    default = next((entry for entry in entries if entry.artifact == path), None)
    if default is None:
        default = entry_of(path, settings)
        entries.insert(0, default)
    if len(entries) > settings.max_models:
        raise UserError(
            f"{len(entries)} models are more than max_models, {settings.max_models} "
            f"(set {PREFIX}MAX_MODELS)"
        )
    listing = Listing.of(tuple(entries), default.name)
    for kind, text in (("canary", settings.canary), ("shadow", settings.shadow)):
        if text:
            listing = listing.trying(kind, _trial(kind, text, listing))  # type: ignore[arg-type]
    for entry in without_threshold(listing, settings):
        why = f"{entry.reference} always answers: it has no score below which to abstain"
        print(why, file=sys.stderr, flush=True)
    return replace(listing, revision=0)


def given_folders(settings: Settings) -> dict[str, tuple[Path, Path]]:
    """Returns, by name, the models given at the start: the folder, and that of its versions."""
    found: dict[str, tuple[Path, Path]] = {}
    for named, where in (*map(split_name, settings.models), (None, settings.artifact)):
        path = where.absolute()
        name, home = path.name, path
        if path == CARRIED and (path / MANIFEST).exists():
            name, _ = _called(path, read_manifest(path))
        elif _VERSION.fullmatch(path.name) and not version_folders(path):
            name, home = path.parent.name, path.parent
        if named is not None or home not in [known for _, known in found.values()]:
            found.setdefault(named or name, (path, home))
    return found


def _in_repository(settings: Settings, repository: Path, known: list[Entry]) -> list[Entry]:
    """Returns the models of ``repository`` besides those ``known``, without broken ones."""
    folders = {entry.artifact for entry in known}
    found = []
    for name, folder in folders_of(repository).items():
        if folder.absolute() in folders:
            continue
        try:
            entry = entry_of(folder, settings, name)
            check(entry, settings)
        except UserError as error:
            print(f"error: {error}; {name} is left out", file=sys.stderr, flush=True)
        else:
            found.append(entry)
    return found


def _trial(kind: str, text: str, listing: Listing) -> Trial:
    """Returns the trial that ``NAME[:VERSION][=5%]`` stands for; a shadow may lack the share.

    Raises:
        UserError: no such model, or no such share.
    """
    named, equals, share = text.partition("=")
    name, _, version = named.partition(":")
    if name not in listing.current:
        raise UserError(f"{kind} is {text!r}: {closest(name, list(listing.current))}")
    version = version or listing.current[name]
    if (name, version) not in listing.keys:
        versions = [entry.version for entry in listing.entries if entry.name == name]
        raise UserError(f"{kind} is {text!r}: {closest(version, versions)}")
    if kind == "shadow" and not equals:
        share = "100%"
    try:
        part = float(share.removesuffix("%")) / 100 if share.endswith("%") else 0.0
    except ValueError:
        part = 0.0
    if not 0 < part <= 1:
        raise UserError(
            f"{kind} is {text!r}: its share is a percentage above 0, up to 100: {named}=5%"
        )
    return Trial(name=name, version=version, share=part)
