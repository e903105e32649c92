"""One network to its artifacts, each proven before it appears."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from export.artifact import (
    MODEL_FILES,
    Artifact,
    Format,
    Logits,
    Metrics,
    Precision,
    Quantization,
    TensorSpec,
    write_artifact,
)
from export.calibration import choose_int8
from export.network import Network, stack
from export.parity import LIMITS, ParityError, check_parity, measure_parity, parity_batches
from export.runtimes.base import Runtime, RuntimeUnavailable, load_runtime
from export.to_fp16 import to_fp16
from export.to_onnx import INPUT, OUTPUT, to_onnx
from export.to_tensorrt import FlavourName, build_engine
from models.cost import NetworkCost, network_cost
from models.errors import UserError, closest
from models.files import staged
from models.preprocess import Pixels
from training.data import pixel_batches

ARTIFACTS = Path("artifacts")
TARGETS: dict[str, tuple[Format, Precision]] = {
    "onnx-fp32": ("onnx", "fp32"),
    "onnx-fp16": ("onnx", "fp16"),
    "onnx-int8": ("onnx", "int8"),
    "tensorrt_rtx-fp16": ("tensorrt_rtx", "fp16"),
    "tensorrt-fp16": ("tensorrt", "fp16"),  # only where its GPU is, so not built unasked
}
DEFAULT_TARGETS = tuple(TARGETS)[:-1]

PARITY_IMAGES = 64
GOLDEN_IMAGES = 8
# What proves an artifact of each format where it is made.
_PROVING_RUNTIME = {"onnx": "ort-cpu", "tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one target: an artifact, or the reason there is none.

    ``failed`` tells a target that missed a limit from one this machine cannot build.
    """

    target: str
    artifact: Artifact | None = None
    reason: str | None = None
    failed: bool = False


def check_targets(targets: Sequence[str]) -> None:
    """Raises UserError if one of ``targets`` is not a ``<format>-<precision>`` that is built."""
    for target in targets:
        if target not in TARGETS:
            raise UserError(f"unknown format {target!r}: {closest(target, TARGETS)}")


def build_artifacts(
    network: Network, targets: Sequence[str] = DEFAULT_TARGETS, *, max_batch: int = 32
) -> Iterator[Outcome]:
    """Yields the outcome of each target as it is done.

    Artifacts appear in ``artifacts/<model>-<data>/<target>/``, whole or not at all. One that
    misses a limit leaves nothing, an earlier one of the same name included: it would be of other
    weights.
    """
    check_targets(targets)
    builder = _Builder(network, max_batch)
    folder = ARTIFACTS / f"{network.model}-{network.data}"
    for target in targets:
        path = folder / target
        try:
            with staged(path) as new:
                artifact = builder.build(target, new)
            yield Outcome(target, replace(artifact, path=path))
        except RuntimeUnavailable as error:
            yield Outcome(target, reason=str(error))
        except ParityError as error:
            shutil.rmtree(path, ignore_errors=True)
            yield Outcome(target, reason=str(error), failed=True)


class _Builder:
    """The graphs of one network, each made when first needed, and what proves them."""

    def __init__(self, network: Network, max_batch: int) -> None:
        self._network = network
        self._batch_range = (1, max_batch)

    def build(self, target: str, folder: Path) -> Artifact:
        """Returns the artifact ``target``, complete and proven, in ``folder``."""
        format, precision = TARGETS[target]
        graph = getattr(self, precision)
        model_file = folder / MODEL_FILES[format]
        if format == "onnx":
            model_file.write_bytes(graph.SerializeToString())
        else:
            model_file.write_bytes(self._engine(format))
        draft = self._draft(folder, format, precision)
        try:
            # Every core: this proves answers, it does not time them.
            runtime = load_runtime(_PROVING_RUNTIME[format], draft)
        except RuntimeUnavailable as error:
            golden = _run_graph(graph, self.golden_pixels)
            return write_artifact(replace(draft, unverified=str(error)), self.golden_pixels, golden)
        with runtime:
            return self._prove(draft, runtime)

    def _prove(self, draft: Artifact, runtime: Runtime) -> Artifact:
        batches = parity_batches(self._batch_range)
        parity = measure_parity(runtime, self.parity_pixels, self.reference, batches)
        if self._network.weights != "random":  # a random network has no classes to agree on
            check_parity(parity, draft.precision)
        proven = replace(draft, parity=parity, metrics=self._metrics(runtime))
        return write_artifact(proven, self.golden_pixels, runtime(self.golden_pixels))

    def _metrics(self, runtime: Runtime) -> Metrics | None:
        network = self._network
        if not network.labelled:
            return None
        batches = pixel_batches(network.held_out, network.preprocess, size=self._batch_range[1])
        right = sum(int((runtime(p).argmax(axis=1) == labels).sum()) for p, labels in batches)
        images = len(network.held_out)
        return Metrics(top1=right / images, images=images, runtime=runtime.name)

    def _draft(self, folder: Path, format: Format, precision: Precision) -> Artifact:
        network = self._network
        side = network.preprocess.crop
        return Artifact(
            path=folder,
            model=network.model,
            data=network.data,
            weights=network.weights,
            precision=precision,
            format=format,
            labels=network.labels,
            preprocess=network.preprocess,
            input=TensorSpec(name=INPUT, dtype="uint8", shape=("batch", side, side, 3)),
            output=TensorSpec(name=OUTPUT, dtype="float32", shape=("batch", len(network.labels))),
            batch_range=self._batch_range,
            macs=self.cost.macs,
            parameters=self.cost.parameters,
            parity=None,
            metrics=None,
            unverified=None,
            source=network.source,
            quantization=self._int8[1] if precision == "int8" else None,
            versions=_versions(format),
            sha256s={},
        )

    @cached_property
    def fp32(self) -> Any:
        """The float32 ``ModelProto``."""
        size = self._network.preprocess.crop
        return to_onnx(self._network.module, size=size, max_batch=self._batch_range[1])

    @cached_property
    def cost(self) -> NetworkCost:
        """Of the float32 graph; its multiply-accumulates are the same in every precision."""
        return network_cost(self.fp32)

    @cached_property
    def fp16(self) -> Any:
        """The float16 ``ModelProto``."""
        return to_fp16(self.fp32)

    @cached_property
    def int8(self) -> Any:
        """The QDQ ``ModelProto``."""
        return self._int8[0]

    @cached_property
    def _int8(self) -> tuple[Any, Quantization]:
        network = self._network
        samples = network.calibration
        pixels, labels = next(pixel_batches(samples, network.preprocess, size=len(samples)))
        # A random network has no classes to agree on, so nothing to gain from float32 layers.
        limits = None if network.weights == "random" else LIMITS["int8"]
        return choose_int8(self.fp32, pixels, labels if network.labelled else None, limits)

    def _engine(self, flavour: FlavourName) -> bytes:
        graph = self.fp16.SerializeToString()
        return build_engine(graph, flavour, batch_range=self._batch_range)

    @cached_property
    def parity_pixels(self) -> Pixels:
        """uint8 (n, H, W, 3) of held-out images; n is a multiple of the largest batch."""
        largest = self._batch_range[1]
        count = max(largest, PARITY_IMAGES // largest * largest)
        samples = [self._network.held_out[i % len(self._network.held_out)] for i in range(count)]
        return stack(samples, self._network.preprocess)

    @cached_property
    def reference(self) -> Logits:
        """float32 (n, C): torch's logits of :attr:`parity_pixels`."""
        with torch.inference_mode():
            logits: Logits = self._network.module(torch.from_numpy(self.parity_pixels)).numpy()
        return logits

    @property
    def golden_pixels(self) -> Pixels:
        """uint8 (n, H, W, 3): the batch an artifact keeps for later checks."""
        return self.parity_pixels[: min(GOLDEN_IMAGES, self._batch_range[1])]


def _run_graph(graph: Any, pixels: Pixels) -> Logits:
    """Returns what ONNX Runtime answers for the graph an engine was built from."""
    import onnxruntime

    session = onnxruntime.InferenceSession(
        graph.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {INPUT: pixels})[0], dtype=np.float32)


def _versions(format: Format) -> dict[str, str]:
    packages = ["pocketnets", "torch", "torchvision", "onnx", "onnxscript"]
    if format != "onnx":
        packages.append(format.replace("_", "-"))
    return {package: version(package) for package in packages}
