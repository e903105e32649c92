"""What a network costs, counted from its exported graph, so that a folded batch norm is free."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerCost:
    """The cost of one node of the graph, for one image.

    Attributes:
        name: of the node.
        op: ONNX operator.
        macs: multiply-accumulates; of convolutions and matrix products only.
        parameters: elements of its weights and biases.
        activations: elements of its output.
        inputs: elements of its inputs that are not weights.
    """

    name: str
    op: str
    macs: int
    parameters: int
    activations: int
    inputs: int

    def bytes_moved(self, precision: str = "fp32") -> int:
        """Returns bytes of input, weights and output, once each (ShuffleNetV2's access cost)."""
        return (self.inputs + self.parameters + self.activations) * _BYTES[precision]


def layer_costs(model: Any) -> list[LayerCost]:
    """Returns the cost of every node of an ONNX ``ModelProto`` with float32 weights, in order.

    The first dimension of the graph's input counts as one image.
    """
    import onnx

    model = onnx.ModelProto.FromString(model.SerializeToString())
    for end in (*model.graph.input, *model.graph.output):
        end.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    shapes = dict(weights)
    for value in (*graph.input, *graph.output, *graph.value_info):
        shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    return [_layer_cost(node, shapes, weights) for node in graph.node]


def total_macs(layers: Iterable[LayerCost]) -> int:
    """Returns multiply-accumulates per image."""
    return sum(layer.macs for layer in layers)


def total_parameters(model: Any) -> int:
    """Returns the number of elements of an ONNX ``ModelProto``'s floating-point weights."""
    import onnx

    floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    tensors = model.graph.initializer
    return sum(math.prod(t.dims) for t in tensors if t.data_type in floating)


def _layer_cost(
    node: Any, shapes: dict[str, tuple[int, ...]], weights: dict[str, tuple[int, ...]]
) -> LayerCost:
    output = math.prod(shapes[node.output[0]])
    return LayerCost(
        name=node.name,
        op=node.op_type,
        macs=output * _macs_per_output(node, shapes),
        parameters=sum(math.prod(weights[name]) for name in node.input if name in weights),
        activations=output,
        inputs=sum(math.prod(shapes[name]) for name in node.input if name not in weights),
    )


def _macs_per_output(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type == "Conv":
        return math.prod(shapes[node.input[1]][1:])  # channels of one group x kernel
    if node.op_type == "Gemm":
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        return shapes[node.input[0]][0 if transposed else 1]
    if node.op_type == "MatMul":
        return shapes[node.input[0]][-1]
    return 0
