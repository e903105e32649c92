"""The formats of model files: one :class:`FormatSpec` each.

Whatever depends on the format of an artifact asks its spec, never its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

from artifact.records import Precision
from core.registry import Registry

# Of a graph. TensorRT takes int8 activations around zero only; a CPU is faster with uint8 ones.
Scheme = Literal["fp32", "fp16", "int8", "int8-symmetric"]

GRAPH = "model.onnx"  # lies in every artifact: the model itself, or what it was made from


@dataclass(frozen=True, kw_only=True, slots=True)
class FormatSpec:
    """A kind of model file, and how it is made and proven.

    Attributes:
        name: first half of an artifact's name, ``<format>-<precision>``.
        files: the model files in the artifact's folder, first the one that a runtime is given.
        max_bytes: most bytes of one of them; a larger one is refused unread.
        schemes: each precision it is made in, and the graph it is made from: ``fp32``, ``fp16``,
            ``int8``, or ``int8-symmetric`` (zero points are 0).
        default: the precisions that are made unasked.
        proving_runtime: what proves it, by the name of its runtime.
        build: ``module:callable`` that takes a draft Artifact, its graph as bytes, and batch sizes
            to optimise for; writes the model files into the draft's folder and returns it with
            its fingerprint. None where the graph is the model file.
        require: ``module:callable`` that takes the format's name and raises RuntimeUnavailable
            where it cannot be made; None where it always can.
        machine_bound: whether it runs only on machines like the one it was made for; its manifest
            then holds a fingerprint.
        for_phones: whether phones run it; ``phone`` stands for all such formats.
        packages: what makes its model files, by name in the package registry: the manifest holds
            their versions, besides those that made the graph. Without them it is not made.
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
    packages: tuple[str, ...] = ()

    @property
    def model_file(self) -> str:
        """Returns the name of the file that a runtime is given."""
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
    """Returns the two halves of an artifact's name; one of :func:`artifact_names`."""
    format, _, precision = name.rpartition("-")
    return FORMATS[format], cast(Precision, precision)


def artifact_names() -> list[str]:
    """Returns the name ``<format>-<precision>`` of every artifact that can be made, in order."""
    return [f"{spec.name}-{each}" for spec in FORMATS.values() for each in spec.schemes]


def group_names() -> dict[str, list[str]]:
    """Returns the words that stand for several artifacts, and the names of those."""
    every = artifact_names()
    return {"all": every, "phone": [name for name in every if split_name(name)[0].for_phones]}


def default_names() -> list[str]:
    """Returns the name of every artifact that is made unasked, in order."""
    return [f"{spec.name}-{each}" for spec in FORMATS.values() for each in spec.default]


FORMATS.register(
    FormatSpec(
        name="onnx",
        files=(GRAPH,),
        max_bytes=2 << 30,  # what protobuf can hold
        schemes={"fp32": "fp32", "fp16": "fp16", "int8": "int8"},
        default=("fp32", "fp16", "int8"),
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
# Built only where its GPU is, so not unasked.
FORMATS.register(_tensorrt("tensorrt", {"fp16": "fp16", "int8": "int8-symmetric"}, default=()))
FORMATS.register(
    FormatSpec(
        name="litert",
        files=("model.tflite",),
        max_bytes=2 << 30,  # what flatbuffers can hold
        schemes={"fp32": "fp32", "fp16": "fp32", "int8": "int8"},
        proving_runtime="litert",
        build="export.litert.build:build",
        require="artifact.runtimes.litert:require",
        for_phones=True,
        packages=("ai-edge-litert", "flatbuffers"),
    )
)
