"""The interface of all runtimes, and their registry."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from artifact.artifact import Artifact
from artifact.records import Logits, Precision
from core.errors import UserError, first_line
from core.lazy import resolve
from core.machine import library_name
from core.preprocess import Pixels
from core.registry import Registry


class RuntimeUnavailable(UserError):
    """This machine lacks what a runtime needs; the message says what to install."""


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

    def prepare(self, size: int) -> None:  # noqa: B027 - most have nothing to do
        """Does what the first call with ``size`` images would do first.

        Raises:
            RuntimeUnavailable: this machine cannot take so many.
        """

    @abstractmethod
    def close(self) -> None:
        """Frees what the runtime holds; no call may follow."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeSpec:
    """A runtime, for all that lists runtimes.

    Attributes:
        name: what it is asked for by.
        loader: ``module:callable`` from an artifact to the runtime, imported when first asked for.
        bare: ``module:callable`` for networks that are no artifacts, such as the blocks of a study:
            from torch's network, the bytes of its ONNX graph, a float32 array of inputs and the CPU
            threads of a call to a call that returns its outputs; None where there is none.
        formats: of the artifacts it takes.
        precisions: of the artifacts it is measured with.
        require: ``module:callable`` that takes the runtime's name and raises RuntimeUnavailable
            where this machine lacks what every artifact needs, besides what ``loader`` imports.
        packages: what it computes with, by name in the package registry: rows of another version
            are not comparable. See :func:`core.machine.this_machine` for their order.
        in_bento: packages that a Bento installs for it; none if a Bento cannot hold it.
        gpu: whether it computes on an NVIDIA GPU.
        needs_torch: whether it runs the torch network itself; a server starts without torch.
        compiles: whether loading takes minutes, so that it is measured only where that is asked.
        quick: whether it loads in a moment, and is part of a first look.
        install: the command that installs what it needs.
    """

    name: str
    loader: str
    require: str | None = None
    bare: str | None = None
    formats: tuple[str, ...]
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    packages: tuple[str, ...]
    in_bento: tuple[str, ...] = ()
    gpu: bool = False
    needs_torch: bool = False
    compiles: bool = False
    quick: bool = False
    install: str

    @property
    def library(self) -> str:
        """Returns its library, by its name in :attr:`core.machine.Machine.versions`."""
        return library_name(self.packages[0])


# Charts colour runtimes in this order.
RUNTIMES = Registry[RuntimeSpec]("runtime")

# Torch runs the network's source, which is the same behind every precision: on a GPU it can be cast
# to half, where it is as fast as that; on a CPU it is fp32.
_EAGER, _CUDA = "export.torch_eager", "export.torch_cuda"
for _name, _loader, _require, _bare, _gpu in (
    ("torch", f"{_EAGER}:load", None, f"{_EAGER}:load_bare", False),
    ("torch-compile", f"{_EAGER}:load_compiled", f"{_EAGER}:require_compiler", None, False),
    ("torch-cuda", f"{_CUDA}:load", f"{_CUDA}:require", "bench.measure.cuda_graph:load_bare", True),
    ("torch-cuda-compile", f"{_CUDA}:load_compiled", f"{_CUDA}:require", None, True),
):
    RUNTIMES.register(
        RuntimeSpec(
            name=_name,
            loader=_loader,
            require=_require,
            bare=_bare,
            formats=("onnx",),
            precisions=("fp32", "fp16") if _gpu else ("fp32",),
            packages=("torch",),
            gpu=_gpu,
            needs_torch=True,
            compiles=_name.endswith("compile"),
            install="pip install torch",
        )
    )
RUNTIMES.register(
    RuntimeSpec(
        name="ort-cpu",
        loader="artifact.runtimes.ort:load_cpu",
        bare="artifact.runtimes.ort:load_bare",
        formats=("onnx",),
        packages=("onnxruntime-gpu", "onnxruntime"),
        in_bento=("onnxruntime",),
        quick=True,
        install="pip install onnxruntime",
    )
)
RUNTIMES.register(
    RuntimeSpec(
        name="ort-cuda",
        loader="artifact.runtimes.ort_cuda:load",
        require="artifact.runtimes.ort_cuda:require",
        formats=("onnx",),
        packages=("onnxruntime-gpu", "onnxruntime"),
        gpu=True,
        quick=True,
        install="pip install onnxruntime-gpu",
    )
)
RUNTIMES.register(
    RuntimeSpec(
        name="openvino",
        loader="artifact.runtimes.openvino_cpu:load",
        require="artifact.runtimes.openvino_cpu:require",
        bare="artifact.runtimes.openvino_cpu:load_bare",
        formats=("onnx",),
        packages=("openvino",),
        in_bento=("openvino",),
        install="pip install .[openvino]",
    )
)
for _format, _install in (
    ("tensorrt", "pip install .[tensorrt]"),
    ("tensorrt_rtx", "pip install tensorrt-rtx"),
):
    RUNTIMES.register(
        RuntimeSpec(
            name=_format.replace("_", "-"),
            loader="artifact.runtimes.tensorrt_engine:load",
            require="artifact.runtimes.tensorrt_engine:require",
            formats=(_format,),
            packages=(_format.replace("_", "-"),),
            gpu=True,
            quick=True,
            install=_install,
        )
    )
RUNTIMES.register(
    RuntimeSpec(
        name="litert",
        loader="artifact.runtimes.litert:load",
        require="artifact.runtimes.litert:require",
        formats=("litert",),
        packages=("ai-edge-litert",),
        in_bento=("ai-edge-litert",),
        quick=True,
        install="pip install .[litert]",
    )
)


def list_runtimes(format: str | None = None, precision: Precision | None = None) -> list[str]:
    """Returns the names of all runtimes, or of those that take such artifacts."""
    return [
        name
        for name, spec in RUNTIMES.items()
        if format in (None, *spec.formats) and precision in (None, *spec.precisions)
    ]


def runs_on_gpu(name: str) -> bool:
    """Returns whether runtime ``name`` computes on an NVIDIA GPU; an unknown one does not."""
    return name in RUNTIMES and RUNTIMES[name].gpu


def is_servable(name: str) -> bool:
    """Returns whether a server may use runtime ``name``: it starts without torch."""
    return name in RUNTIMES and not RUNTIMES[name].needs_torch


def runtime_packages() -> tuple[str, ...]:
    """Returns the names of all packages that runtimes compute with."""
    return tuple(dict.fromkeys(each for spec in RUNTIMES.values() for each in spec.packages))


def require_runtime(name: str) -> None:
    """Returns None if this machine has what runtime ``name`` needs, whatever the artifact.

    Raises:
        RuntimeUnavailable: it lacks something; the message says what, and how to install it.
        UserError: no such runtime.
    """
    spec = RUNTIMES.find(name)
    try:
        resolve(spec.loader)
    except ImportError as error:
        raise RuntimeUnavailable(f"{name}: {first_line(error)}; {spec.install}") from error
    if spec.require:
        resolve(spec.require)(name)


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
    spec = RUNTIMES.find(name)
    if artifact.format not in spec.formats:
        allowed = ", ".join(list_runtimes(artifact.format))
        raise UserError(f"{name} does not run {artifact.name} artifacts; use {allowed}")
    if rebuild and not artifact.spec.machine_bound:
        raise UserError(f"rebuild is for engines: {artifact.name} has none; leave it out")
    options: dict[str, Any] = {"threads": threads, **({"rebuild": True} if rebuild else {})}
    runtime: Runtime = resolve(spec.loader)(artifact, **options)
    return runtime


def run_batches(runtime: Runtime, pixels: Pixels, batch: int) -> Logits:
    """Returns the float32 (n, C) logits of ``pixels``, run ``batch`` at a time."""
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
