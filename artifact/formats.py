"""The formats of model files: one :class:`FormatSpec` each.

Code that depends on an artifact's format uses its spec, and never compares names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal, cast

from artifact.records import Precision
from core.registry import Registry

# Kinds of graph. TensorRT requires symmetric int8 activations; a CPU is faster with uint8 ones.
Scheme = Literal["fp32", "fp16", "int8", "int8-symmetric"]

GRAPH = "model.onnx"  # in every artifact: the model itself, or its source
CORE_ML_PACKAGE = "model.mlpackage"  # a folder


@dataclass(frozen=True, kw_only=True, slots=True)
class FormatSpec:
    """A format of model files, and how they are built and verified.

    Attributes:
        name: first half of an artifact's name, ``<format>-<precision>``.
        files: names of the model files in the artifact's folder, with ``/`` where they lie in one
            inside it; a runtime loads the first one, or the folder that holds all.
        max_bytes: size limit of each in bytes; a larger file is refused unread.
        schemes: precision to the kind of graph it is built from: ``fp32``, ``fp16``, ``int8``, or
            ``int8-symmetric`` (zero points are 0).
        default: precisions that are built unless others are named.
        proving_runtime: name of the runtime that verifies it.
        build: ``module:callable`` that takes a draft Artifact, its graph as bytes, and batch sizes
            to optimise for; writes the model files into the draft's folder and returns the draft
            with its fingerprint. None where the graph is the model file.
        require: ``module:callable`` that takes the format's name and raises RuntimeUnavailable
            where it cannot be built; None where it always can.
        machine_bound: whether it runs only on machines like the one it was built for; its manifest
            then has a fingerprint.
        for_phones: whether phones can run it; the name ``phone`` selects all such formats.
        fast: precisions of which one or another is the fastest on a CPU (docs/results.md, "Beside
            other toolchains"); the name ``cpu`` selects all such artifacts.
        packages: PyPI names of the packages that build its model files, besides those that make
            the graph: the manifest records their versions. Without them it is not built.
    """

    name: str
    files: tuple[str, ...]
    max_bytes: int
    schemes: Mapping[Precision, Scheme]
    default: tuple[Precision, ...] = ()
    proving_runtime: str
    build: str | None = None
    require: str | None = None
    machine_bound: bool = False
    for_phones: bool = False
    fast: tuple[Precision, ...] = ()
    packages: tuple[str, ...] = ()

    @property
    def model_file(self) -> str:
        """Returns the name of the file that a runtime loads."""
        return self.files[0]

    @property
    def is_graph(self) -> bool:
        """Returns whether the ONNX graph itself is the model file."""
        return self.build is None

    @property
    def all_files(self) -> frozenset[str]:
        """Returns the names of the model files and of the graph."""
        return frozenset((GRAPH, *self.files))


FORMATS = Registry[FormatSpec]("format")


def split_name(name: str) -> tuple[FormatSpec, Precision]:
    """Returns format and precision of an artifact's name, one of :func:`artifact_names`."""
    format, _, precision = name.rpartition("-")
    return FORMATS[format], cast(Precision, precision)


def artifact_names() -> list[str]:
    """Returns the name ``<format>-<precision>`` of every artifact that can be built, in order."""
    return _names(lambda spec: spec.schemes)


def group_names() -> dict[str, list[str]]:
    """Returns the names of groups of artifacts, with the names of their members."""
    every = artifact_names()
    return {
        "all": every,
        "cpu": _names(lambda spec: spec.fast),
        "phone": [name for name in every if split_name(name)[0].for_phones],
    }


def default_names() -> list[str]:
    """Returns the names of the artifacts that are built by default, in order."""
    return _names(lambda spec: spec.default)


def _names(precisions: Callable[[FormatSpec], Iterable[Precision]]) -> list[str]:
    return [f"{spec.name}-{each}" for spec in FORMATS.values() for each in precisions(spec)]


FORMATS.register(
    FormatSpec(
        name="onnx",
        files=(GRAPH,),
        max_bytes=2 << 30,  # limit of protobuf
        schemes={"fp32": "fp32", "fp16": "fp16", "int8": "int8"},
        default=("fp32", "fp16", "int8"),
        fast=("fp32", "int8"),
        proving_runtime="ort-cpu",
    )
)


def _tensorrt(
    name: str, schemes: Mapping[Precision, Scheme], default: tuple[Precision, ...]
) -> FormatSpec:
    return FormatSpec(
        name=name,
        files=("model.engine",),
        max_bytes=4 << 30,
        schemes=schemes,
        default=default,
        proving_runtime=name.replace("_", "-"),
        build="artifact.runtimes.tensorrt_builder:build",
        require="artifact.runtimes.tensorrt_flavours:find_target",
        machine_bound=True,
        packages=(name.replace("_", "-"),),
    )


FORMATS.register(_tensorrt("tensorrt_rtx", {"fp16": "fp16"}, default=("fp16",)))
# Can be built only on its own GPU, so it is not built by default.
FORMATS.register(_tensorrt("tensorrt", {"fp16": "fp16", "int8": "int8-symmetric"}, default=()))
FORMATS.register(
    FormatSpec(
        name="openvino",
        files=("model.xml", "model.bin"),
        max_bytes=2 << 30,
        schemes={"bf16": "fp32", "int8": "int8"},
        proving_runtime="openvino",
        build="export.to_openvino:build",
        require="artifact.runtimes.openvino_cpu:require",
        fast=("bf16", "int8"),
        packages=("openvino",),
    )
)
FORMATS.register(
    FormatSpec(
        name="litert",
        files=("model.tflite",),
        max_bytes=2 << 30,  # limit of flatbuffers
        schemes={"fp32": "fp32", "fp16": "fp32", "int8": "int8"},
        proving_runtime="litert",
        build="export.litert.build:build",
        require="artifact.runtimes.litert:require",
        for_phones=True,
        fast=("fp32", "int8"),
        packages=("ai-edge-litert", "flatbuffers"),
    )
)
FORMATS.register(
    FormatSpec(
        name="ncnn",
        files=("model.param", "model.bin"),
        max_bytes=2 << 30,
        schemes={"fp32": "fp32", "fp16": "fp32"},
        proving_runtime="ncnn",
        build="export.to_ncnn:build",
        require="export.to_ncnn:require",
        for_phones=True,
        packages=("ncnn", "pnnx"),
    )
)
FORMATS.register(
    FormatSpec(
        name="executorch",
        files=("model.pte",),
        max_bytes=2 << 30,
        schemes={"fp32": "fp32", "int8": "int8"},
        proving_runtime="executorch",
        build="export.executorch.build:build",
        require="export.executorch_cpu:require",
        for_phones=True,
        packages=("executorch",),
    )
)
FORMATS.register(
    FormatSpec(
        name="coreml",
        files=tuple(
            f"{CORE_ML_PACKAGE}/{file}"
            for file in (
                "Data/com.apple.CoreML/model.mlmodel",
                "Data/com.apple.CoreML/weights/weight.bin",
                "Manifest.json",
            )
        ),
        max_bytes=2 << 30,
        schemes={"fp16": "fp16", "int8": "int8-symmetric"},
        proving_runtime="coreml",
        build="export.coreml.build:build",
        require="artifact.runtimes.coreml_mac:import_coremltools",
        for_phones=True,
        packages=("coremltools",),
    )
)
