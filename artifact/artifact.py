"""The deployable folder and what it says of itself. No torch here: a server imports this file.

artifacts/mobilenet_v3_large-digits/onnx-int8/
    manifest.json       everything below, and digests of the other files and of itself
    model.onnx          in an engine's folder: the graph it was built from
    model.engine        in an engine's folder only
    golden_pixels.npy   uint8 (n, H, W, 3)
    golden_logits.npy   float32 (n, num_classes): what the model file answered when it was made
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from artifact.gates import Gate, gates_of
from artifact.integrity import ArtifactError, check_contents, check_files
from artifact.records import (
    Count,
    Digest,
    Fingerprint,
    Format,
    Labels,
    Limits,
    Logits,
    Metrics,
    Parity,
    Positive,
    Precision,
    Quantization,
    Source,
    TensorSpec,
    Weights,
)
from artifact.untrusted import read_array, read_fields
from core.files import sha256, write_whole
from core.preprocess import Pixels, Preprocess

ARTIFACTS = Path("artifacts")  # <model>-<data>/<format>-<precision>/

SCHEMA = 2
MANIFEST = "manifest.json"
GOLDEN_PIXELS = "golden_pixels.npy"
GOLDEN_LOGITS = "golden_logits.npy"
GRAPH = "model.onnx"
ENGINE = "model.engine"
MODEL_FILES: dict[Format, str] = {"onnx": GRAPH, "tensorrt": ENGINE, "tensorrt_rtx": ENGINE}


@with_config(ConfigDict(extra="forbid", allow_inf_nan=False))
@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """A network that is ready to run elsewhere, and everything needed to use it.

    Attributes:
        path: the folder. All else is in its manifest.
        model: registry name of the network.
        data: name of the data it answers for; ``imagenet`` or ``random`` without a run.
        weights: trained here, published for ImageNet, or random (good for latency only).
        precision: property of the graph.
        format: what kind of model file this is.
        labels: class names, in the order of the logits.
        preprocess: what turns an image into pixels.
        input: uint8 ("batch", H, W, 3).
        output: float32 ("batch", num_classes).
        batch_range: smallest and largest batch the model file takes.
        macs: multiply-accumulates per image.
        parameters: number of weights of the graph, batch norm folded.
        limits: what the figures below must reach.
        parity: agreement with torch; None if unverified.
        metrics: None where nothing was measured (no held-out images, or not runnable here).
        unverified: None, or why the model file itself was not run where it was made.
        source: where the weights came from.
        fp32_layers: names of the nodes left in float32, the most sensitive first.
        quantization: how it came to int8; None in other precisions.
        fingerprint: what an engine is tied to; None for a graph.
        versions: package name to version, of what made it.
        sha256s: file name to digest of each file beside the manifest.
    """

    path: Path
    model: str
    data: str
    weights: Weights
    precision: Precision
    format: Format
    labels: Labels
    preprocess: Preprocess
    input: TensorSpec
    output: TensorSpec
    batch_range: tuple[Positive, Positive]
    macs: Count
    parameters: Count
    limits: Limits
    parity: Parity | None
    metrics: Metrics | None
    unverified: str | None
    source: Source
    fp32_layers: tuple[str, ...] = ()
    quantization: Quantization | None = None
    fingerprint: Fingerprint | None = None
    versions: dict[str, str]
    sha256s: dict[str, Digest]

    @property
    def name(self) -> str:
        """Returns ``<format>-<precision>``, the name of the folder."""
        return f"{self.format}-{self.precision}"

    @property
    def model_file(self) -> Path:
        """Returns the path of the ONNX graph or engine."""
        return self.path / MODEL_FILES[self.format]

    @property
    def graph_file(self) -> Path:
        """Returns the path of the ONNX graph: the model file, or what the engine came from."""
        return self.path / GRAPH

    @property
    def size(self) -> int:
        """Returns the bytes of the model file."""
        return self.model_file.stat().st_size

    @property
    def gates(self) -> tuple[Gate, ...]:
        """Returns the figures that have a limit; none of an unverified artifact."""
        return gates_of(self.parity, self.metrics, self.limits) if self.parity else ()

    @property
    def rebuild_command(self) -> str:
        """Returns the command that makes this artifact again."""
        if self.weights == "trained":
            return f"make export MODEL={self.model} DATA={self.source.data}"
        return f"make export MODEL={self.model} WEIGHTS={self.weights}"

    def golden(self) -> tuple[Pixels, Logits]:
        """Returns the golden batch: uint8 (n, H, W, 3) and the float32 (n, C) it must give.

        Raises:
            ArtifactError: the files hold something else.
        """
        side, classes = self.preprocess.crop, len(self.labels)
        pixels = read_array(self.path, GOLDEN_PIXELS, "uint8", (side, side, 3))
        logits = read_array(self.path, GOLDEN_LOGITS, "float32", (classes,))
        return pixels, logits

    @classmethod
    def load(cls, path: Path) -> Artifact:
        """Returns the artifact in folder ``path``, every file of it checked.

        The digests show what was damaged or mixed up; who can write into the folder can make them
        anew, or change a file after it was checked and before a runtime reads it.

        Raises:
            ArtifactError: no artifact, an unknown schema, a missing or changed file, a manifest
                that contradicts itself or the golden batch, or a gate that does not hold.
        """
        try:
            artifact = _read_manifest(path)
            check_files(artifact, files_of(artifact.format))
            check_contents(artifact)
        except OSError as error:  # no permission, a broken disk
            raise ArtifactError(f"{path}: cannot be read ({error})") from error
        return artifact


_ADAPTER = TypeAdapter(Artifact)


def files_of(format: Format) -> set[str]:
    """Returns the names of all files of an artifact but its manifest."""
    return {GRAPH, MODEL_FILES[format], GOLDEN_PIXELS, GOLDEN_LOGITS}


def write_artifact(artifact: Artifact, pixels: Pixels, logits: Logits) -> Artifact:
    """Returns ``artifact`` as it now stands complete in ``artifact.path``.

    The graph and the engine are there already; the golden batch and the manifest, with the digests
    of all files, are added. Call it inside :func:`core.files.staged`, so that the folder appears
    whole.
    """
    np.save(artifact.path / GOLDEN_PIXELS, np.ascontiguousarray(pixels))
    np.save(artifact.path / GOLDEN_LOGITS, np.ascontiguousarray(logits))
    names = sorted(files_of(artifact.format))
    digests = {name: sha256(artifact.path / name) for name in names}
    return write_manifest(dataclasses.replace(artifact, sha256s=digests))


def write_manifest(artifact: Artifact) -> Artifact:
    """Returns ``artifact`` as loaded from its folder, whose manifest now says what it says."""
    fields = {"schema": SCHEMA, **manifest_of(artifact)}
    text = json.dumps({**fields, "digest": digest_of(fields)}, indent=1, ensure_ascii=False)
    write_whole(artifact.path / MANIFEST, f"{text}\n".encode())
    return Artifact.load(artifact.path)


def manifest_of(artifact: Artifact) -> dict[str, Any]:
    """Returns the fields of ``artifact`` but its path, ready for JSON."""
    fields: dict[str, Any] = _ADAPTER.dump_python(artifact, mode="json")
    del fields["path"]
    return fields


def digest_of(fields: dict[str, Any]) -> str:
    """Returns the hex SHA-256 of a manifest's fields, ``digest`` itself left out."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _read_manifest(path: Path) -> Artifact:
    manifest = path / MANIFEST
    if not manifest.exists():
        raise ArtifactError(
            f"{path}: not an artifact, it holds no {MANIFEST}; "
            "make one with: make export MODEL=mobilenet_v3 DATA=digits"
        )
    fields = read_fields(path, MANIFEST)
    schema = fields.pop("schema", None)
    if schema != SCHEMA:
        raise ArtifactError(
            f"{manifest}: schema is {schema!r}, this version reads {SCHEMA}; export it again"
        )
    digest = fields.pop("digest", None)
    if digest != digest_of({"schema": schema, **fields}):
        raise ArtifactError(
            f"{manifest}: it was changed after it was written (its digest differs); "
            "copy the folder again or export it again"
        )
    try:
        # As JSON and strict: as Python objects, the text "7" would pass for the number.
        artifact = _ADAPTER.validate_json(json.dumps({**fields, "path": "."}), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"{manifest}: {where}: {first['msg']}; export it again") from None
    return dataclasses.replace(artifact, path=path)
