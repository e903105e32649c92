"""Computes average pools of an int8 graph as depthwise convolutions.

ONNX Runtime has fast integer kernels for these, and averages levels one by one in float32.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from export.node_attributes import attributes, pads_itself
from export.rewrites.links import Links
from export.rewrites.unread import set_nodes


def average_by_convolutions(model: Any) -> int:
    """Replaces each int8 AveragePool by a depthwise Conv, in place; returns how many.

    Its weights are all 1, with a scale of one over their number, and the sums of levels are exact.
    Of an even number of levels the average can lie halfway between two, which runtimes round in
    other ways: such pools stay as they are.

    Args:
        model: ONNX ``ModelProto`` in QDQ form. A pool that reads or makes float32, or that divides
            by fewer values at an edge, stays as it is.
    """
    import onnx
    from onnx.helper import make_node
    from onnx.numpy_helper import from_array

    graph = model.graph
    if all(node.op_type != "AveragePool" for node in graph.node):
        return 0
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    shapes = {
        info.name: [each.dim_value for each in info.type.tensor_type.shape.dim]
        for info in inferred.value_info
    }
    links = Links(graph)

    def is_replaceable(node: Any) -> bool:
        restores = links.restores(node)
        return (
            restores is not None
            and links.constants[restores.input[2]].dtype == np.uint8
            and links.rounds(node) is not None
            and np.prod(attributes(node)["kernel_shape"]) % 2 == 1
        )

    nodes, replaced = [], 0
    for node in graph.node:
        shape = shapes.get(node.input[0], []) if node.op_type == "AveragePool" else []
        if len(shape) != 4 or not is_replaceable(node) or not _divides_by_all(node, shape):
            nodes.append(node)
            continue
        values, channels = attributes(node), shape[1]
        window = values["kernel_shape"]
        constant = {
            "ones": np.ones((channels, 1, *window), np.int8),
            "scale": np.full(channels, 1 / np.prod(window), np.float32),
            "zero": np.zeros(channels, np.int8),
        }
        names = [f"{node.name}/{name}" for name in constant]
        for name, value in zip(names, constant.values(), strict=True):
            graph.initializer.append(from_array(value, name))
        weights = f"{node.name}/weights"
        kept = {
            name: values[name] for name in ("kernel_shape", "strides", "pads") if name in values
        }
        nodes += [
            make_node("DequantizeLinear", names, [weights], name=weights, axis=0),
            make_node(
                "Conv", [node.input[0], weights], node.output, node.name, group=channels, **kept
            ),
        ]
        replaced += 1
    if replaced:
        set_nodes(graph, nodes)
    return replaced


def restore(model: Any) -> None:
    """Undoes :func:`average_by_convolutions`, in place."""
    from onnx.helper import make_node

    nodes = []
    for node in model.graph.node:
        if node.op_type == "Conv" and node.input[1] == f"{node.name}/weights":
            values = attributes(node)
            del values["group"]
            values["count_include_pad"] = 1
            node = make_node("AveragePool", node.input[:1], node.output, node.name, **values)
        nodes.append(node)
    set_nodes(model.graph, nodes)


def _divides_by_all(node: Any, shape: list[int]) -> bool:
    """Returns whether a pool divides each sum by the number of values in its window."""
    values = attributes(node)
    window = values["kernel_shape"]
    if len(window) != 2 or pads_itself(values):
        return False
    if any(each != 1 for each in values.get("dilations", [])):
        return False
    pads, strides = values.get("pads", [0] * 4), values.get("strides", [1, 1])
    if any(pads) and not values.get("count_include_pad", 0):
        return False
    padded = [shape[2 + axis] + pads[axis] + pads[2 + axis] for axis in (0, 1)]
    left = [(size - of) % step for size, of, step in zip(padded, window, strides, strict=True)]
    return not values.get("ceil_mode", 0) or not any(left)
