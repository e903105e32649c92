"""What every runtime has in common, and the table of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from artifact.artifact import Artifact
from artifact.records import Logits
from core.errors import UserError, closest
from core.lazy import resolve
from core.preprocess import Pixels


class RuntimeUnavailable(UserError):
    """This machine cannot run that; the message says why and what to install."""


class Runtime(ABC):
    """Executes one artifact. A context manager; leaving it closes it.

    Attributes:
        name: one of :func:`list_runtimes`.
        parallel: whether calls may come from several threads at once.
    """

    name: str
    parallel: bool = True

    @abstractmethod
    def __call__(self, pixels: Pixels) -> Logits:
        """Returns float32 logits (N, C) of uint8 pixels (N, H, W, 3), both on the host."""

    @abstractmethod
    def close(self) -> None:
        """Frees what the runtime holds; no call may follow."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeSpec:
    """A runtime, as everything that lists runtimes knows it.

    Attributes:
        name: what it is asked for by.
        loader: ``module:callable`` from an artifact to the runtime, imported when first asked for.
        formats: of the artifacts it takes.
        packages: what it computes with, by name in the package registry: rows of another version
            are not comparable. See :func:`core.machine.this_machine` for their order.
        gpu: whether it computes on an NVIDIA GPU.
    """

    name: str
    loader: str
    formats: tuple[str, ...]
    packages: tuple[str, ...]
    gpu: bool = False


# A new one goes to the end: charts colour runtimes in this order.
_SPECS = (
    RuntimeSpec(
        name="torch",
        loader="export.torch_eager:load",
        formats=("onnx",),
        packages=("torch",),
    ),
    RuntimeSpec(
        name="torch-compile",
        loader="export.torch_eager:load_compiled",
        formats=("onnx",),
        packages=("torch",),
    ),
    RuntimeSpec(
        name="torch-cuda",
        loader="export.torch_cuda:load",
        formats=("onnx",),
        packages=("torch",),
        gpu=True,
    ),
    RuntimeSpec(
        name="torch-cuda-compile",
        loader="export.torch_cuda:load_compiled",
        formats=("onnx",),
        packages=("torch",),
        gpu=True,
    ),
    RuntimeSpec(
        name="ort-cpu",
        loader="artifact.runtimes.ort:load_cpu",
        formats=("onnx",),
        packages=("onnxruntime-gpu", "onnxruntime"),
    ),
    RuntimeSpec(
        name="ort-cuda",
        loader="artifact.runtimes.ort_cuda:load",
        formats=("onnx",),
        packages=("onnxruntime-gpu", "onnxruntime"),
        gpu=True,
    ),
    RuntimeSpec(
        name="openvino",
        loader="artifact.runtimes.openvino_cpu:load",
        formats=("onnx",),
        packages=("openvino",),
    ),
    RuntimeSpec(
        name="tensorrt",
        loader="artifact.runtimes.tensorrt_engine:load",
        formats=("tensorrt",),
        packages=("tensorrt",),
        gpu=True,
    ),
    RuntimeSpec(
        name="tensorrt-rtx",
        loader="artifact.runtimes.tensorrt_engine:load",
        formats=("tensorrt_rtx",),
        packages=("tensorrt-rtx",),
        gpu=True,
    ),
)
_RUNTIMES = {spec.name: spec for spec in _SPECS}


def list_runtimes(format: str | None = None) -> list[str]:
    """Returns the names of all runtimes, or of those that take ``format``."""
    return [name for name, spec in _RUNTIMES.items() if format in (None, *spec.formats)]


def runs_on_gpu(name: str) -> bool:
    """Returns whether runtime ``name`` computes on an NVIDIA GPU; one of :func:`list_runtimes`."""
    return _RUNTIMES[name].gpu


def runtime_packages() -> tuple[str, ...]:
    """Returns the names of all packages that runtimes compute with."""
    return tuple(dict.fromkeys(each for spec in _RUNTIMES.values() for each in spec.packages))


def load_runtime(
    name: str, artifact: Artifact, *, threads: int | None = None, rebuild: bool = False
) -> Runtime:
    """Returns runtime ``name`` with ``artifact`` loaded.

    Args:
        name: one of :func:`list_runtimes`.
        artifact: what to run.
        threads: CPU threads inside one call; None for all cores.
        rebuild: whether an engine that does not fit this machine is built anew, in memory, from
            the graph beside it; without it such an engine is refused.

    Raises:
        RuntimeUnavailable: this machine lacks what the runtime needs, and how to install it.
        UserError: no such runtime, one that does not take the artifact's format, or ``rebuild``
            of an artifact without an engine.
    """
    if name not in _RUNTIMES:
        raise UserError(f"unknown runtime {name!r}: {closest(name, _RUNTIMES)}")
    spec = _RUNTIMES[name]
    if artifact.format not in spec.formats:
        allowed = ", ".join(list_runtimes(artifact.format))
        raise UserError(f"{name} does not run {artifact.name} artifacts; use {allowed}")
    if rebuild and not artifact.spec.machine_bound:
        raise UserError(f"rebuild is for engines: {artifact.name} has none; leave it out")
    options: dict[str, Any] = {"threads": threads, **({"rebuild": True} if rebuild else {})}
    runtime: Runtime = resolve(spec.loader)(artifact, **options)
    return runtime


def run_batches(runtime: Runtime, pixels: Pixels, batch: int) -> Logits:
    """Returns float32 (n, C): what ``runtime`` answers for ``pixels``, ``batch`` at a time."""
    starts = range(0, len(pixels), batch)
    return np.concatenate([runtime(pixels[start : start + batch]) for start in starts])


def check_pixels(pixels: Pixels, artifact: Artifact) -> None:
    """Raises UserError unless ``pixels`` is a uint8 batch that ``artifact`` takes."""
    shape = artifact.input.shape
    smallest, largest = artifact.batch_range
    if pixels.dtype != np.uint8 or pixels.shape[1:] != shape[1:]:
        raise UserError(
            f"pixels are {pixels.dtype} {list(pixels.shape)}: "
            f"{artifact.name} takes uint8 {list(shape)}"
        )
    if not smallest <= len(pixels) <= largest:
        raise UserError(
            f"a batch of {len(pixels)}: {artifact.name} takes {smallest} to {largest} images"
        )
