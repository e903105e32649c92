"""Emulates the float16 arithmetic of a GPU without one.

ONNX Runtime has no float16 convolutions for CPUs: it computes float16 layers in float32 and drops
the rounding between them, with every optimization off, too. There a result of 1e5 stays 1e5, and
only on a GPU it is infinite. What it does keep are Casts that the graph itself asks for.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt

from core.preprocess import Pixels
from export.quantization.probe import activations
from export.quantization.ranges import measure_ends

LARGEST = float(np.finfo(np.float16).max)
SMALLEST = np.float32(5.96e-08)  # what the converter raises smaller constants to
MARGIN = 2  # other images reach further than those that are looked at


def beyond_half(model: Any, pixels: Pixels) -> tuple[str, ...]:
    """Returns the layers that float16 cannot hold, in the order of the graph, by name of the node.

    Those that make or read an activation which may overflow, and those with a constant that the
    converter would clamp. It also raises constants that are too small to 6e-8: beside values
    around 1 that is nothing, and where it is something, emulation shows it.

    Args:
        model: float32 ``ModelProto`` that has all types inferred.
        pixels: uint8 (n, H, W, 3) of real images.
    """
    unfit = {
        name
        for name, values in _constants(model).items()
        if np.abs(values).max(initial=0.0) > LARGEST
    }
    for name, ends in measure_ends(model, pixels).items():
        if max(map(abs, ends)) > LARGEST / MARGIN:
            unfit.add(name)
    return tuple(
        node.name for node in model.graph.node if not unfit.isdisjoint([*node.input, *node.output])
    )


def emulate(model: Any, fp32_layers: Collection[str] = ()) -> Any:
    """Returns a float32 ``ModelProto`` that rounds where :func:`.to_fp16.to_fp16` does.

    Constants and the results of layers are float16; sums inside a layer are float32, as in the
    matrix units of a GPU. A Cast rounds and another restores, like the Q/DQ pairs of an int8 graph.

    Args:
        model: float32 ``ModelProto`` that has all types inferred.
        fp32_layers: names of nodes that stay as they are; between two of them nothing is rounded.
    """
    import onnx
    from onnx.numpy_helper import from_array

    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph, constants = result.graph, _constants(model)
    halved = {name for node in graph.node if node.name not in fp32_layers for name in node.input}
    for tensor in graph.initializer:
        if tensor.name in constants and tensor.name in halved:
            tensor.CopyFrom(from_array(_half(constants[tensor.name]), tensor.name))
    restored = {name for name in constants if name in halved}
    nodes = [_cast(name, _single(name), onnx.TensorProto.FLOAT) for name in sorted(restored)]
    floats = set(activations(model))
    exact = {name for node in graph.node if node.name in fp32_layers for name in node.output}
    for original in model.graph.node:
        node = onnx.NodeProto.FromString(original.SerializeToString())
        rounded = restored | (floats - exact if node.name in fp32_layers else floats)
        node.input[:] = [_single(name) if name in rounded else name for name in node.input]
        nodes.append(node)
        for name in floats.intersection(node.output):
            nodes.append(_cast(name, f"{name}/half", onnx.TensorProto.FLOAT16))
            nodes.append(_cast(f"{name}/half", _single(name), onnx.TensorProto.FLOAT))
    del graph.node[:]
    graph.node.extend(nodes)
    for output in graph.output:
        output.name = output.name if output.name in exact else _single(output.name)
    return result


def _cast(source: str, result: str, type: int) -> Any:
    from onnx.helper import make_node

    return make_node("Cast", [source], [result], name=f"cast/{result}", to=type)


def _single(name: str) -> str:
    return f"{name}/single"


def _half(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float16]:
    """Returns constants as the converter rounds them: clamped, and never to zero."""
    small = (values != 0) & (np.abs(values) < SMALLEST)
    kept = np.where(small, np.copysign(SMALLEST, values), values)
    return np.clip(kept, -LARGEST, LARGEST).astype(np.float16)


def _constants(model: Any) -> dict[str, npt.NDArray[np.float32]]:
    """Returns the float32 initializers, by name."""
    import onnx
    from onnx.numpy_helper import to_array

    return {
        tensor.name: to_array(tensor)
        for tensor in model.graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT
    }
