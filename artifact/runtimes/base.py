"""The interface of all runtimes, and their registry."""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from artifact.artifact import Artifact
from artifact.records import Logits, Precision
from core.errors import UserError, first_line
from core.lazy import resolve
from core.machine import adds_in_32_bits, library_name
from core.preprocess import Pixels
from core.registry import Registry


class RuntimeUnavailable(UserError):
    """This machine lacks something a runtime needs; the message says what to install."""


class Runtime(ABC):
    """Runs one artifact. A context manager, which closes the runtime on exit.

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
        """Frees the runtime's resources; it must not be called afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeSpec:
    """The registry entry of a runtime.

    Attributes:
        name: name of the runtime.
        loader: ``module:callable`` that takes an artifact and returns the runtime; imported on
            first use.
        bare: ``module:callable`` for networks that are not artifacts, such as the blocks of a
            study: takes the torch network, its ONNX graph as bytes, a float32 array of inputs and
            the CPU threads per call, and returns a function that runs it and returns the outputs.
            None if not supported.
        formats: formats of artifacts that it accepts.
        precisions: precisions of artifacts that are benchmarked in it.
        require: ``module:callable`` that takes the runtime's name and raises RuntimeUnavailable
            if this machine lacks something that every artifact needs, besides what ``loader``
            imports.
        packages: PyPI names of the libraries it computes with: benchmark rows of different versions
            are not comparable. See :func:`core.machine.this_machine` for their order.
        in_bento: packages that a Bento installs for it; empty if a Bento cannot contain it.
        gpu: whether it computes on an NVIDIA GPU.
        needs_torch: whether it runs the torch network itself; the server does not support those.
        clips_sums: whether it adds products of 8-bit integers in 16 bits on x86 CPUs without VNNI.
        compiles: whether loading takes minutes, so that it is benchmarked only on request.
        quick: whether it loads fast enough for a quick benchmark.
        install: command that installs its dependencies.
    """

    name: str
    loader: str
    require: str | None = None
    bare: str | None = None
    formats: tuple[str, ...]
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
    packages: tuple[str, ...]
    in_bento: tuple[str, ...] = ()
    gpu: bool = False
    needs_torch: bool = False
    clips_sums: bool = False
    compiles: bool = False
    quick: bool = False
    install: str

    @property
    def library(self) -> str:
        """Returns its library, by its name in :attr:`core.machine.Machine.versions`."""
        return library_name(self.packages[0])


# The order of registration determines the colours in charts.
RUNTIMES = Registry[RuntimeSpec]("runtime")

# torch runs the torch network itself, which is the same for every precision: on a GPU it can be
# cast to float16; on a CPU it runs in float32.
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
        clips_sums=True,
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
        formats=("onnx", "openvino"),
        packages=("openvino",),
        in_bento=("openvino",),
        clips_sums=True,
        install="pip install '.[openvino]'",
    )
)
for _format, _install in (
    ("tensorrt", "pip install '.[tensorrt]'"),
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
        install="pip install '.[litert]'",
    )
)
RUNTIMES.register(
    RuntimeSpec(
        name="ncnn",
        loader="artifact.runtimes.ncnn_cpu:load",
        require="artifact.runtimes.ncnn_cpu:require",
        formats=("ncnn",),
        packages=("ncnn",),
        in_bento=("ncnn",),
        quick=True,
        install="pip install '.[ncnn]'",
    )
)
RUNTIMES.register(
    RuntimeSpec(
        name="executorch",
        loader="export.executorch_cpu:load",
        require="export.executorch_cpu:require",
        formats=("executorch",),
        precisions=("fp32", "int8"),
        packages=("executorch",),
        install="pip install '.[executorch]'",
    )
)
RUNTIMES.register(
    RuntimeSpec(
        name="coreml",
        loader="artifact.runtimes.coreml_mac:load",
        require="artifact.runtimes.coreml_mac:require",
        formats=("coreml",),
        precisions=("fp16", "int8"),
        packages=("coremltools",),
        install="pip install '.[coreml]'",
    )
)


def list_runtimes(format: str | None = None, precision: Precision | None = None) -> list[str]:
    """Returns the names of all runtimes, or of those that accept such artifacts."""
    return [
        name
        for name, spec in RUNTIMES.items()
        if format in (None, *spec.formats) and precision in (None, *spec.precisions)
    ]


def runs_on_gpu(name: str) -> bool:
    """Returns whether runtime ``name`` computes on an NVIDIA GPU; False for an unknown name."""
    return name in RUNTIMES and RUNTIMES[name].gpu


def is_servable(name: str) -> bool:
    """Returns whether a server, which has no torch, can use runtime ``name``."""
    return name in RUNTIMES and not RUNTIMES[name].needs_torch


def servable_runtimes(format: str) -> list[str]:
    """Returns the names of the runtimes of such artifacts that a server can use.

    Raises:
        UserError: there are none.
    """
    found = [name for name in list_runtimes(format) if is_servable(name)]
    if not found:
        raise UserError(
            f"no server, predict or evaluate runs {format} artifacts; bench and verify do"
        )
    return found


def runtime_packages() -> tuple[str, ...]:
    """Returns the names of all packages that runtimes compute with."""
    return tuple(dict.fromkeys(each for spec in RUNTIMES.values() for each in spec.packages))


def require_import(name: str, *modules: str) -> None:
    """Checks that ``modules``, of what a runtime computes with, can be imported.

    Args:
        name: of the runtime, or of a format that is called the same.
        modules: dotted names.

    Raises:
        RuntimeUnavailable: one cannot; the message says how to install it.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise RuntimeUnavailable(
                f"{name}: cannot be imported ({first_line(error)}); {RUNTIMES.find(name).install}"
            ) from error


def require_runtime(name: str) -> None:
    """Checks that this machine has what runtime ``name`` needs for any artifact.

    Raises:
        RuntimeUnavailable: something is missing; the message says how to install it.
        UserError: unknown runtime.
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
        rebuild: whether to rebuild an engine that does not fit this machine, in memory, from the
            graph in its folder; otherwise such an engine is refused.

    Raises:
        RuntimeUnavailable: something the runtime needs is missing; the message says how to install
            it.
        UserError: unknown runtime, one that does not accept the artifact's format, or ``rebuild``
            for an artifact without an engine.
    """
    spec = RUNTIMES.find(name)
    if artifact.format not in spec.formats:
        allowed = ", ".join(list_runtimes(artifact.format))
        raise UserError(f"{name} does not run {artifact.name} artifacts; use {allowed}")
    if rebuild and not artifact.spec.machine_bound:
        raise UserError(f"rebuild is for engines: {artifact.name} has none; leave it out")
    quantized = artifact.quantization
    if spec.clips_sums and quantized and quantized.weight_bits == 8 and not adds_in_32_bits():
        raise RuntimeUnavailable(
            f"{name}: this CPU has no VNNI, without which sums over the 8-bit weights of "
            f"{artifact.path} are clipped; export it with --target avx2, or run it in litert"
        )
    options: dict[str, Any] = {"threads": threads, **({"rebuild": True} if rebuild else {})}
    runtime: Runtime = resolve(spec.loader)(artifact, **options)
    return runtime


def run_batches(runtime: Runtime, pixels: Pixels, batch: int) -> Logits:
    """Returns the float32 (n, C) logits of ``pixels``, run ``batch`` at a time."""
    starts = range(0, len(pixels), batch)
    return np.concatenate([runtime(pixels[start : start + batch]) for start in starts])


def check_pixels(pixels: Pixels, artifact: Artifact) -> None:
    """Raises UserError unless ``pixels`` is a uint8 batch of the shape ``artifact`` accepts."""
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
