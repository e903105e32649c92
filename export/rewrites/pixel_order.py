"""Normalises and rounds pixels before their channels are moved to the front.

OpenVINO leaves channels where they are if nothing is between that and a convolution, which wants
them last again. ONNX Runtime and LiteRT compute such a graph as they did.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from export.node_attributes import attributes
from export.rewrites.links import Links

_FIRST, _LAST = [0, 3, 1, 2], [0, 2, 3, 1]  # channels moved to the front, and back
_FACTORS = ["Mul", "Add"]  # with a value for each channel
_ROUNDING = ["QuantizeLinear", "DequantizeLinear"]


def normalise_before_transpose(model: Any) -> int:
    """Moves the Transpose of the pixels behind the nodes that normalise and round them, in place.

    Each value is computed as before. The factors are repeated for a whole row, as ONNX Runtime
    would scale three values at a time. Returns 1, or 0 where nothing was moved.

    Args:
        model: ONNX ``ModelProto``, in float32 or in QDQ form. A graph that does not move the
            channels of its pixels to the front, then scale and shift them, stays as it is; so do
            TensorRT's, which round to int8: it was not measured there.
    """
    graph, links = model.graph, Links(model.graph)
    nodes = _behind_cast(graph, links)
    kinds = [node.op_type for node in nodes]
    if kinds[:3] != ["Transpose", *_FACTORS] or attributes(nodes[0])["perm"] != _FIRST:
        return 0
    first, *steps = nodes if kinds[3:] == _ROUNDING else nodes[:3]
    factors = [links.constants.get(step.input[1], np.zeros(0)) for step in steps[:2]]
    rounded = links.constants[steps[-1].input[2]].dtype if len(steps) > 2 else np.uint8
    if any(factor.ndim != 4 for factor in factors) or rounded != np.uint8:
        return 0
    width = graph.input[0].type.tensor_type.shape.dim[2].dim_value
    _set_order(graph, links, [first, *steps], [*steps, first])
    for step, factor in zip(steps, factors, strict=False):
        row = factor if factor.shape[3] > 1 else factor.repeat(width, axis=3)
        _set_constant(graph, step.input[1], row.transpose(_LAST))
    return 1


def restore(model: Any) -> None:
    """Undoes :func:`normalise_before_transpose`, in place; another graph stays as it is."""
    graph, links = model.graph, Links(model.graph)
    nodes = _behind_cast(graph, links)
    kinds = [node.op_type for node in nodes]
    place = kinds.index("Transpose") if "Transpose" in kinds else 0
    if kinds[:place] in (_FACTORS, [*_FACTORS, *_ROUNDING]):
        steps, last = nodes[:place], nodes[place]
        _set_order(graph, links, [*steps, last], [last, *steps])
        for step in steps[:2]:
            name = step.input[1]
            _set_constant(graph, name, links.constants[name].transpose(_FIRST))


def _behind_cast(graph: Any, links: Links) -> list[Any]:
    """Returns the nodes behind the Cast of the pixels, each of which alone reads the one before."""
    nodes: list[Any] = []
    readers = links.readers[graph.input[0].name]
    while len(readers) == 1 and len(nodes) < 6:
        nodes += readers
        readers = links.readers[readers[0].output[0]]
    return nodes[1:] if nodes and nodes[0].op_type == "Cast" else []


def _set_order(graph: Any, links: Links, nodes: Sequence[Any], order: Sequence[Any]) -> None:
    """Puts ``nodes``, of which each reads the one before, in another order."""
    place = list(graph.node).index(nodes[0])
    source, end = nodes[0].input[0], nodes[-1].output[0]
    for node in order:
        node.input[0], source = source, node.output[0]
    for reader in links.readers[end]:
        reader.input[:] = [source if name == end else name for name in reader.input]
    left = [node for node in graph.node if node not in nodes]
    ordered = [*left[:place], *order, *left[place:]]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(ordered)


def _set_constant(graph: Any, name: str, values: Any) -> None:
    from onnx.numpy_helper import from_array

    for tensor in graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(from_array(values.copy(), name))
