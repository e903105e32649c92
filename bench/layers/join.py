"""Joins the kernels of a profile with the layers of a network and their costs."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from artifact.records import Precision
from bench.layers.layers import LayerTime, computed_in
from bench.layers.profiler import Kernel
from core.errors import UserError
from models.cost import BYTES, VIEWS, LayerCost, kind_without_weights, layer_costs

# What ONNX Runtime adds to the name of a layer, or of its result, when it rewrites it.
_DECORATED = re.compile(
    r"(?:InsertedPrecisionFreeCast_)?(.*?)(?:_nchwc|_token_\d+|/QuickGeluFusion/)?"
)


def join(
    model: Any, kernels: Sequence[Kernel], precision: Precision = "fp32", batch: int = 1
) -> list[LayerTime]:
    """Returns a layer for each of ``kernels``.

    A kernel computes the layer it is named after, and those before it that no kernel is named
    after: they were fused with it. Its cost is that of the one with the most MACs.

    Args:
        model: ``ModelProto`` that the kernels are of.
        kernels: from :class:`bench.layers.profiler.Profiler`.
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
    nodes = {node.name: node for node in model.graph.node}
    layers = []
    for index, kernel in enumerate(kernels):
        # Of several without MACs the last one: it is what the kernel is named after.
        main = max(reversed(parts.get(index, [])), key=lambda cost: cost.macs, default=None)
        if main is None:
            layers.append(_added(kernel))
        else:
            layers.append(_layer_time(kernel, main, nodes[main.name], precision, batch))
    return layers


def _added(kernel: Kernel) -> LayerTime:
    return LayerTime(
        name=kernel.name,
        op=kernel.op,
        kind=kind_without_weights(kernel.op),
        added=True,
        macs=0,
        bytes=0,
        read=kernel.read,
        weights=0,
        written=kernel.written,
        seconds=kernel.seconds,
    )


def _layer_time(
    kernel: Kernel, main: LayerCost, node: Any, precision: Precision, batch: int
) -> LayerTime:
    view = kernel.op in VIEWS
    size = BYTES[computed_in(kernel.op) if precision == "int8" else precision]
    return LayerTime(
        name=main.module or main.name,
        op=kernel.op,
        kind=main.kind,
        added=False,
        macs=main.macs * batch,
        bytes=main.bytes_moved(precision, batch),
        read=0 if view else _read(kernel, main, node),
        weights=main.parameters * size,
        written=0 if view else kernel.written,
        seconds=kernel.seconds,
    )


def _read(kernel: Kernel, main: LayerCost, node: Any) -> int:
    """Returns how many of the bytes that a kernel is given it cannot but read."""
    if kernel.op == "Slice":
        return min(kernel.read, kernel.written)
    if main.kind == "pointwise":  # it steps over pixels; the windows of others touch
        strides = next((a.ints for a in node.attribute if a.name == "strides"), ())
        return kernel.read // math.prod(strides)
    return kernel.read


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
