"""Folders of artifacts: lists them, describes their graphs, and stores which one was picked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import TypeAdapter, ValidationError

from artifact.artifact import ARTIFACTS, MANIFEST, Artifact, manifest_of, readable
from artifact.formats import CORE_ML_PACKAGE
from artifact.validation import ArtifactError
from core.errors import UserError, first_line
from core.files import write_whole

PICK_FILE = "choice.json"
FALLBACK = "onnx-fp32"  # runs everywhere, and agrees best with torch


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """A folder with a manifest: the artifact, or why it was refused."""

    path: Path
    artifact: Artifact | None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns path, reason and manifest, ready for JSON."""
        known = {} if self.artifact is None else manifest_of(self.artifact)
        return {"path": str(self.path), "refused": self.reason, **known}


class GraphFacts(NamedTuple):
    """Facts about an ONNX graph."""

    opset: int
    ops: dict[str, int]  # number of nodes by operator, the most frequent first


def stored_artifacts(folder: Path = ARTIFACTS) -> Iterator[StoredArtifact]:
    """Yields the artifacts below ``folder`` in order of path, with all files checked."""
    for manifest in sorted(folder.rglob(MANIFEST)):
        path = manifest.parent
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue  # it is being written
        if path.name == CORE_ML_PACKAGE:
            continue  # of its own Manifest.json, which macOS takes for the same name
        try:
            yield StoredArtifact(path, Artifact.load(path))
        except ArtifactError as error:
            yield StoredArtifact(path, None, str(error).removeprefix(f"{path}: "))


def graph_facts(artifact: Artifact) -> GraphFacts:
    """Returns facts about the graph of ``artifact``; for an engine, its source graph.

    Raises:
        ArtifactError: the file is not an ONNX graph.
    """
    import onnx

    try:
        model: Any = onnx.load(artifact.graph_file, load_external_data=False)
        domains = ("", "ai.onnx")
        (opset,) = (entry.version for entry in model.opset_import if entry.domain in domains)
    except Exception as error:  # protobuf's, of which the package google has no stable name
        raise ArtifactError(
            f"{artifact.graph_file}: not an ONNX graph ({first_line(error)}); export it again"
        ) from None
    return GraphFacts(opset, dict(Counter(node.op_type for node in model.graph.node).most_common()))


@dataclass(frozen=True, kw_only=True, slots=True)
class SavedPick:
    """The pick of a benchmark, for one network or among all networks.

    Attributes:
        artifact: path of the artifact's folder, relative to the folder of this file:
            ``onnx-int8`` for one network, ``mobilenet_v2-digits/onnx-int8`` among all.
        runtime: name of the runtime that it was measured in.
        batch: images per call.
        threads: CPU threads inside one call.
        p50_s: median latency of such a call, in seconds.
        machine: name of the processor it was measured on.
    """

    artifact: str
    runtime: str
    batch: int = 1
    threads: int
    p50_s: float
    machine: str


_ADAPTER = TypeAdapter(SavedPick)


def save_pick(folder: Path, pick: SavedPick) -> Path:
    """Writes ``pick`` to a file in ``folder`` and returns its path."""
    return write_whole(folder / PICK_FILE, _ADAPTER.dump_json(pick, indent=1) + b"\n")


def read_pick(folder: Path) -> SavedPick | None:
    """Returns the pick stored in ``folder``; None if there is none.

    Raises:
        UserError: the file is invalid, or cannot be read.
    """
    path = folder / PICK_FILE
    try:
        with readable(folder):
            return _ADAPTER.validate_json(path.read_bytes()) if path.is_file() else None
    except ValidationError as error:
        what = error.errors()[0]["msg"]
        raise UserError(f"{path}: {what}; measure again with: python -m bench run") from None


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The artifact that a path stands for, and how it was picked to run.

    Attributes:
        artifact: its folder.
        runtime: name of the runtime it was picked with; None if it was not picked.
        threads: CPU threads inside one call, likewise.
        why: the reason in words; empty if the path is of an artifact that was not picked.
    """

    artifact: Path
    runtime: str | None = None
    threads: int | None = None
    why: str = ""


def choose(path: Path) -> Choice:
    """Returns the artifact that ``path`` stands for: its own, or one of those in that folder.

    A folder of several stands for the one that a benchmark picked; without a pick for its
    ``onnx-fp32``, if there is one. Every command that takes an artifact follows this rule.

    Raises:
        UserError: the pick is there and cannot be understood, or ``path`` cannot be read.
    """
    saved, folder = read_pick(path), path
    if saved is None:
        beside = read_pick(path.absolute().parent)
        if beside is not None and beside.artifact == path.name:
            saved, folder = beside, path.parent
    if saved is not None:
        threads = f", {saved.threads} threads a call" if saved.threads > 1 else ""
        return Choice(
            artifact=folder / saved.artifact,
            runtime=saved.runtime,
            threads=saved.threads,
            why=f"picked: {saved.p50_s * 1e3:.2f} ms on {saved.machine}{threads}",
        )
    with readable(path):
        falls_back = not (path / MANIFEST).exists() and (path / FALLBACK / MANIFEST).exists()
    if falls_back:
        why = f"no {PICK_FILE} in {path}; make bench measures which is fastest"
        return Choice(artifact=path / FALLBACK, why=why)
    return Choice(artifact=path)
