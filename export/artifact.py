"""The deployable folder and what it says of itself. No torch here: a server imports this file.

artifacts/mobilenet_v3_large-digits/onnx-int8/
    manifest.json       everything below, validated when loaded
    model.onnx          or model.engine
    golden_pixels.npy   uint8 (n, H, W, 3)
    golden_logits.npy   float32 (n, num_classes): what the model file answered when it was made
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from models.errors import UserError
from models.files import sha256
from models.preprocess import Pixels, Preprocess

Logits = npt.NDArray[np.float32]
Precision = Literal["fp32", "fp16", "int8"]
Format = Literal["onnx", "tensorrt", "tensorrt_rtx"]
Weights = Literal["trained", "imagenet", "random"]
Calibration = Literal["MinMax", "Percentile", "Entropy"]

SCHEMA = 1
MANIFEST = "manifest.json"
GOLDEN_PIXELS = "golden_pixels.npy"
GOLDEN_LOGITS = "golden_logits.npy"
MODEL_FILES: dict[Format, str] = {
    "onnx": "model.onnx",
    "tensorrt": "model.engine",
    "tensorrt_rtx": "model.engine",
}


class ArtifactError(UserError):
    """A folder that cannot be trusted as an artifact; the message names what is wrong."""


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """One end of the graph: its name, NumPy dtype and shape, where ``"batch"`` is free."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where the weights came from.

    Attributes:
        origin: in words: a run, a publisher, or a seed.
        checkpoint: path of the checkpoint, or None for ImageNet and random weights.
        sha256: of that checkpoint; None without one.
    """

    origin: str
    checkpoint: str | None = None
    sha256: str | None = None


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True, slots=True)
class Parity:
    """Agreement of a runtime with the torch model on the same real images.

    Attributes:
        runtime: what ran the artifact's graph.
        images: how many images each figure comes from.
        batches: the batch sizes that were run.
        top1_agreement: fraction of images with the same top-1 class, the worst batch size.
        relative_error: largest absolute difference of logits over the largest absolute torch
            logit, the worst batch size.
    """

    runtime: str
    images: int
    batches: tuple[int, ...]
    top1_agreement: float
    relative_error: float


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True, slots=True)
class Metrics:
    """Accuracy measured on this very artifact: top1 in [0, 1], on how many images, by what."""

    top1: float
    images: int
    runtime: str


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True, slots=True)
class Quantization:
    """How an int8 graph was made.

    Attributes:
        calibration: the method that gave each activation its range.
        images: how many calibration images it was chosen on.
        labelled: whether ``top1`` counts true labels; if not, it is agreement with float32.
        top1: of each method on those images, all layers in int8; the best one was taken.
        fp32_layers: names of the nodes left in float32, the most sensitive first.
    """

    calibration: Calibration
    images: int
    labelled: bool
    top1: dict[Calibration, float]
    fp32_layers: tuple[str, ...]


@with_config(ConfigDict(extra="forbid"))
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
        parity: agreement with torch; None if unverified.
        metrics: None where nothing was measured (no held-out images, or not runnable here).
        unverified: None, or why the model file itself was not run where it was made.
        source: where the weights came from.
        quantization: how it came to int8; None in other precisions.
        versions: package name to version, of what made it.
        sha256s: file name to digest of each file beside the manifest.
    """

    path: Path
    model: str
    data: str
    weights: Weights
    precision: Precision
    format: Format
    labels: tuple[str, ...]
    preprocess: Preprocess
    input: TensorSpec
    output: TensorSpec
    batch_range: tuple[int, int]
    macs: int
    parameters: int
    parity: Parity | None
    metrics: Metrics | None
    unverified: str | None
    source: Source
    quantization: Quantization | None = None
    versions: dict[str, str]
    sha256s: dict[str, str]

    @property
    def name(self) -> str:
        """Returns ``<format>-<precision>``, the name of the folder."""
        return f"{self.format}-{self.precision}"

    @property
    def model_file(self) -> Path:
        """Returns the path of the ONNX graph or engine."""
        return self.path / MODEL_FILES[self.format]

    @property
    def size(self) -> int:
        """Returns the bytes of the model file."""
        return self.model_file.stat().st_size

    def golden(self) -> tuple[Pixels, Logits]:
        """Returns the golden batch: uint8 (n, H, W, 3) and the float32 (n, C) it must give."""
        pixels = np.load(self.path / GOLDEN_PIXELS, allow_pickle=False)
        logits = np.load(self.path / GOLDEN_LOGITS, allow_pickle=False)
        return pixels, logits

    @classmethod
    def load(cls, path: Path) -> Artifact:
        """Returns the artifact in folder ``path``, every file of it checked.

        Raises:
            ArtifactError: no artifact, an unknown schema, a missing or changed file, a manifest
                that contradicts itself or the golden batch.
        """
        artifact = _read_manifest(path)
        _check_files(artifact)
        _check_contents(artifact)
        return artifact


_ADAPTER = TypeAdapter(Artifact)


def write_artifact(artifact: Artifact, pixels: Pixels, logits: Logits) -> Artifact:
    """Returns ``artifact`` as it now stands complete in ``artifact.path``.

    The model file is there already; the golden batch and the manifest, with the digests of all
    files, are added. Call it inside :func:`staged`, so that the folder appears whole.
    """
    np.save(artifact.path / GOLDEN_PIXELS, pixels)
    np.save(artifact.path / GOLDEN_LOGITS, logits)
    files = (MODEL_FILES[artifact.format], GOLDEN_PIXELS, GOLDEN_LOGITS)
    artifact = dataclasses.replace(
        artifact, sha256s={name: sha256(artifact.path / name) for name in files}
    )
    fields: dict[str, Any] = _ADAPTER.dump_python(artifact, mode="json")
    del fields["path"]
    text = json.dumps({"schema": SCHEMA, **fields}, indent=1, ensure_ascii=False)
    (artifact.path / MANIFEST).write_text(text + "\n", encoding="utf-8")
    return Artifact.load(artifact.path)


def _read_manifest(path: Path) -> Artifact:
    manifest = path / MANIFEST
    if not manifest.is_file():
        raise ArtifactError(
            f"{path}: not an artifact, it holds no {MANIFEST}; "
            "make one with: make export MODEL=mobilenet_v3 DATA=digits"
        )
    try:
        fields = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ArtifactError(f"{manifest}: not JSON ({error}); export it again") from None
    schema = fields.pop("schema", None) if isinstance(fields, dict) else None
    if schema != SCHEMA:
        raise ArtifactError(
            f"{manifest}: schema is {schema!r}, this version reads {SCHEMA}; export it again"
        )
    try:
        return _ADAPTER.validate_python({**fields, "path": path})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"{manifest}: {where}: {first['msg']}; export it again") from None


def _check_files(artifact: Artifact) -> None:
    expected = {MODEL_FILES[artifact.format], GOLDEN_PIXELS, GOLDEN_LOGITS}
    if set(artifact.sha256s) != expected:
        raise ArtifactError(
            f"{artifact.path}: the manifest lists {sorted(artifact.sha256s)}, "
            f"an artifact holds {sorted(expected)}; export it again"
        )
    for name, digest in artifact.sha256s.items():
        file = artifact.path / name
        if not file.is_file():
            raise ArtifactError(f"{file}: missing; copy the whole folder or export it again")
        if sha256(file) != digest:
            raise ArtifactError(
                f"{file}: its bytes are not those of the manifest (sha256 differs); "
                "copy the folder again or export it again"
            )


def _check_contents(artifact: Artifact) -> None:
    side, classes = artifact.preprocess.crop, len(artifact.labels)
    ends = (
        (artifact.input, "uint8", ("batch", side, side, 3)),
        (artifact.output, "float32", ("batch", classes)),
    )
    for end, dtype, shape in ends:
        if (end.dtype, end.shape) != (dtype, shape):
            raise ArtifactError(
                f"{artifact.path}: {end.name} is {end.dtype} {list(end.shape)}, but "
                f"{classes} labels and a crop of {side} want {dtype} {list(shape)}; export it again"
            )
    if (artifact.parity is None) != (artifact.unverified is not None):
        raise ArtifactError(
            f"{artifact.path}: the manifest must hold either its parity with torch or the reason "
            "why it is unverified; export it again"
        )
    if (made := artifact.quantization) is not None:
        if artifact.precision != "int8":
            raise ArtifactError(
                f"{artifact.path}: the manifest says how an {artifact.precision} graph came to "
                "int8; export it again"
            )
        if made.calibration not in made.top1:
            raise ArtifactError(
                f"{artifact.path}: calibration is {made.calibration}, but top1 holds "
                f"{sorted(made.top1)}; export it again"
            )
    smallest, largest = artifact.batch_range
    if not 1 <= smallest <= largest:
        raise ArtifactError(
            f"{artifact.path}: batch_range is {[smallest, largest]}, it must be 1 <= a <= b"
        )
    pixels, logits = artifact.golden()
    if pixels.shape[1:] != (side, side, 3) or logits.shape != (len(pixels), classes):
        raise ArtifactError(
            f"{artifact.path}: the golden batch maps {pixels.shape} to {logits.shape}, "
            f"not (n, {side}, {side}, 3) to (n, {classes}); export it again"
        )
