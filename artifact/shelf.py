"""All artifacts below a folder, and the graph inside one. No torch here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from artifact.artifact import ARTIFACTS, MANIFEST, Artifact, manifest_of
from artifact.integrity import ArtifactError


@dataclass(frozen=True, slots=True)
class Shelved:
    """A folder with a manifest: the artifact, or why it cannot be trusted."""

    path: Path
    artifact: Artifact | None
    reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns what a program wants to know of it, ready for JSON."""
        known = {} if self.artifact is None else manifest_of(self.artifact)
        return {"path": str(self.path), "refused": self.reason, **known}


class GraphFacts(NamedTuple):
    """What an ONNX graph is made of."""

    opset: int
    ops: dict[str, int]  # operator to how many nodes, the most frequent first


def shelved(folder: Path = ARTIFACTS) -> Iterator[Shelved]:
    """Yields each artifact below ``folder``, by path, every file of it checked."""
    for manifest in sorted(folder.rglob(MANIFEST)):
        path = manifest.parent
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue  # one that is being written
        try:
            yield Shelved(path, Artifact.load(path))
        except ArtifactError as error:
            yield Shelved(path, None, str(error).removeprefix(f"{path}: "))


def graph_facts(artifact: Artifact) -> GraphFacts:
    """Returns what the graph of ``artifact`` is made of; an engine's is the one it came from."""
    import onnx

    model: Any = onnx.load(artifact.graph_file, load_external_data=False)
    (opset,) = (entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    return GraphFacts(opset, dict(Counter(node.op_type for node in model.graph.node).most_common()))
