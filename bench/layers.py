"""Where the milliseconds of a network go, against where its MACs are. No torch here."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import onnx

from bench.profiler import Kernel, profile
from bench.timing import Latency, Plan, measure
from export.artifact import Artifact
from export.golden import golden_pixels
from export.records import Precision
from export.runtimes.base import load_runtime
from models.cost import Kind, LayerCost, kind_without_weights, layer_costs
from models.errors import UserError

# What ONNX Runtime adds to the name of a layer, or of its result, when it rewrites it.
_DECORATED = re.compile(
    r"(?:InsertedPrecisionFreeCast_)?(.*?)(?:_nchwc|_token_\d+|/QuickGeluFusion/)?"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerTime:
    """A kernel, and the layer it computes.

    Attributes:
        name: of the layer, by its torch module or else its node; of the kernel if it was added.
        op: the kernel's operator.
        kind: of the layer; see :class:`models.cost.LayerCost`.
        added: the runtime added it, such as a change of layout; the network has no such layer.
        macs: multiply-accumulates of all images of a call.
        bytes: input, weights and output of the layer, for all images of a call; 0 if added.
        seconds: of a call.
    """

    name: str
    op: str
    kind: Kind
    added: bool
    macs: int
    bytes: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """What all layers of a kind have of a network's cost and time, each as a fraction."""

    kind: Kind
    kernels: int
    macs: float
    bytes: float
    time: float
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerTimes:
    """The layers of one artifact, as measured.

    Attributes:
        artifact: what was run.
        batch: images of a call.
        threads: CPU threads inside a call.
        layers: in the order they run.
        call: latency of whole calls, without the profiler.
    """

    artifact: Artifact
    batch: int
    threads: int
    layers: tuple[LayerTime, ...]
    call: Latency

    @property
    def seconds(self) -> float:
        """Returns the sum of all kernels."""
        return sum(layer.seconds for layer in self.layers)

    @property
    def macs(self) -> int:
        """Returns the multiply-accumulates of a call."""
        return sum(layer.macs for layer in self.layers)

    @property
    def bytes(self) -> int:
        """Returns the bytes that all layers move."""
        return sum(layer.bytes for layer in self.layers)

    def slowest(self, count: int) -> list[LayerTime]:
        """Returns the layers that take longest."""
        return sorted(self.layers, key=lambda layer: -layer.seconds)[:count]

    def shares(self) -> list[Share]:
        """Returns the share of each kind, the largest share of time first."""
        kinds: dict[Kind, list[LayerTime]] = {}
        for layer in self.layers:
            kinds.setdefault(layer.kind, []).append(layer)
        macs, bytes_ = self.macs or 1, self.bytes or 1
        shares = [
            Share(
                kind=kind,
                kernels=len(layers),
                macs=sum(layer.macs for layer in layers) / macs,
                bytes=sum(layer.bytes for layer in layers) / bytes_,
                time=sum(layer.seconds for layer in layers) / self.seconds,
                seconds=sum(layer.seconds for layer in layers),
            )
            for kind, layers in kinds.items()
        ]
        return sorted(shares, key=lambda share: -share.time)


def measure_layers(artifact: Artifact, *, batch: int, threads: int, runs: int) -> LayerTimes:
    """Returns how long each layer of ``artifact`` takes in ONNX Runtime on this CPU.

    Args:
        artifact: an ONNX one; its golden images are what it is run on.
        batch: images of a call.
        threads: CPU threads inside a call.
        runs: profiled calls, and as many without the profiler.

    Raises:
        UserError: no ONNX artifact, a batch it does not take, or layers that no kernel is named
            after.
    """
    if artifact.format != "onnx":
        raise UserError(
            f"{artifact.name} is no ONNX graph: layers are measured in ONNX Runtime; "
            "choose onnx-fp32, onnx-fp16 or onnx-int8"
        )
    pixels = golden_pixels(artifact, batch)
    with load_runtime("ort-cpu", artifact, threads=threads) as runtime:
        plan = Plan(count=runs, seconds=0.0)
        call = measure({"call": lambda: runtime(pixels)}, plan)["call"]
    kernels = profile(artifact, pixels, threads=threads, runs=runs)
    layers = join(onnx.load(artifact.model_file), kernels, artifact.precision, batch)
    return LayerTimes(
        artifact=artifact, batch=batch, threads=threads, layers=tuple(layers), call=call
    )


def join(
    model: Any, kernels: Sequence[Kernel], precision: Precision = "fp32", batch: int = 1
) -> list[LayerTime]:
    """Returns a layer for each of ``kernels``.

    A kernel computes the layer it is named after, and those before it that no kernel is named
    after: they were fused with it. Its cost is that of the one with the most MACs.

    Args:
        model: ``ModelProto`` that the kernels are of.
        kernels: from :func:`bench.profiler.profile`.
        precision: of the values that are moved.
        batch: images of a call.

    Raises:
        UserError: layers with MACs that no kernel is named after, or fused with.
    """
    costs, fused = layer_costs(model), _fused(model.graph, kernels)
    lost = [cost.name for cost in costs if cost.macs and cost.name not in fused]
    if lost:
        raise UserError(
            f"this ONNX Runtime names no kernel after {', '.join(lost[:3])}: its profile cannot be "
            f"joined with the graph ({len(lost)} layers); please report its version"
        )
    parts: dict[int, list[LayerCost]] = {}
    for cost in costs:
        if cost.name in fused:
            parts.setdefault(fused[cost.name], []).append(cost)
    return [
        _layer_time(kernel, parts.get(index, []), precision, batch)
        for index, kernel in enumerate(kernels)
    ]


def _layer_time(
    kernel: Kernel, parts: Iterable[LayerCost], precision: Precision, batch: int
) -> LayerTime:
    # Of several without MACs the last one: it is what the kernel is named after.
    main = max(reversed(list(parts)), key=lambda cost: cost.macs, default=None)
    return LayerTime(
        name=(main.module or main.name) if main else kernel.name,
        op=kernel.op,
        kind=main.kind if main else kind_without_weights(kernel.op),
        added=main is None,
        macs=main.macs * batch if main else 0,
        bytes=main.bytes_moved(precision, batch) if main else 0,
        seconds=kernel.seconds,
    )


def _fused(graph: Any, kernels: Iterable[Kernel]) -> Mapping[str, int]:
    """Returns the index of the kernel that computes a node, by the node's name."""
    nodes = {node.name for node in graph.node}
    makers = {name: node.name for node in graph.node for name in node.output}
    found: dict[str, int] = {}
    for index, kernel in enumerate(kernels):
        plain = _DECORATED.fullmatch(kernel.name)
        for name in (kernel.name, plain[1] if plain else ""):
            if (node := name if name in nodes else makers.get(name)) is not None:
                found[node] = index
                break
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.name)
    for node in reversed(graph.node):
        if node.name not in found:
            after = [found[r] for name in node.output for r in readers.get(name, []) if r in found]
            if after:
                found[node.name] = after[0]
    return found
