"""Counts the costs of a network from its exported graph, where a folded batch norm is free.

Only its parameters are counted in torch.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import nn

BYTES = {"fp32": 4, "fp16": 2, "int8": 1}  # of a value
_MULTIPLY = ("Conv", "Gemm", "MatMul")  # the operators whose multiply-accumulates count
VIEWS = ("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")  # operators that move nothing
_COPIES = (
    "Cast", "Concat", "DequantizeLinear", "QuantizeLinear", "Slice", "Split", "Transpose",
    "ReorderInput", "ReorderOutput",  # between ONNX Runtime's own layout for a CPU and NCHW
)  # fmt: skip
Kind = Literal[
    "convolution", "pointwise", "depthwise", "grouped", "linear", "pooling", "element-wise", "data"
]
COSTS_FILE = Path(__file__).with_name("costs.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerCost:
    """The cost of one node of the graph, for one image.

    Attributes:
        name: of the node.
        module: path of the torch module its weights are from; empty if it has none.
        op: ONNX operator.
        kind: what papers call it: a convolution is depthwise with one input channel per group,
            grouped with more, pointwise if 1x1; ``data`` is copied, cast or seen in another shape.
        macs: multiply-accumulates; of convolutions and matrix products only.
        parameters: elements of its weights and biases, and of the statistics of a norm.
        outputs: elements of its output.
        inputs: elements of its inputs that are not weights.
    """

    name: str
    module: str
    op: str
    kind: Kind
    macs: int
    parameters: int
    outputs: int
    inputs: int

    def bytes_moved(self, precision: str = "fp32", batch: int = 1) -> int:
        """Returns bytes of input, weights and output, once each (ShuffleNetV2's access cost).

        Weights are read once for all images of a ``batch``.
        """
        if self.op in VIEWS:
            return 0
        return ((self.inputs + self.outputs) * batch + self.parameters) * BYTES[precision]


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkCost:
    """The cost of a whole network, for one image.

    Attributes:
        macs: multiply-accumulates of convolutions and matrix products.
        parameters: elements of the torch network's weights and biases, as papers count them: with
            those of norms and without their statistics, whether or not they are in the graph.
        activations: elements of the outputs of convolutions and matrix products
            (Designing Network Design Spaces, arXiv 2003.13678, Section 2).
        bytes_moved: of all layers in float32, as if none was fused with another.
    """

    macs: int
    parameters: int
    activations: int
    bytes_moved: int

    @property
    def intensity(self) -> float:
        """FLOPs per byte moved: the roofline model's arithmetic intensity."""
        return 2 * self.macs / self.bytes_moved


def layer_costs(model: Any) -> list[LayerCost]:
    """Returns the cost of every node of an ONNX ``ModelProto``, in order.

    Weights are floats, or dequantized from constants. The first dimension of the graph's input
    counts as one image.
    """
    import onnx

    model = onnx.ModelProto.FromString(model.SerializeToString())
    for end in (*model.graph.input, *model.graph.output):
        end.type.tensor_type.shape.dim[0].dim_value = 1
    del model.graph.value_info[:]
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        shapes[value.name] = tuple(d.dim_value for d in value.type.tensor_type.shape.dim)
    floating = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    weights = {  # no scalars: those are bounds of a Clip and the like
        tensor.name for tensor in graph.initializer if tensor.dims and tensor.data_type in floating
    }
    constants = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            weights.add(node.output[0])
            constants.add(node.output[0])
    return [_layer_cost(node, shapes, weights, constants) for node in graph.node]


def count_parameters(network: nn.Module) -> int:
    """Returns the elements of all weights and biases of a torch network; shared ones count once."""
    return sum(parameter.numel() for parameter in network.parameters())


def network_cost(model: Any, *, parameters: int) -> NetworkCost:
    """Returns the cost of an ONNX ``ModelProto``; see :func:`layer_costs`.

    Args:
        model: the graph.
        parameters: of the network it came from, by :func:`count_parameters`. The graph does not
            tell: of a fresh network it lacks biases, which are zero, and equal tensors.
    """
    return sum_costs(layer_costs(model), parameters=parameters)


def sum_costs(layers: Sequence[LayerCost], *, parameters: int) -> NetworkCost:
    """Returns the cost of a network from its ``layers`` and its number of ``parameters``."""
    return NetworkCost(
        macs=sum(layer.macs for layer in layers),
        parameters=parameters,
        activations=sum(layer.outputs for layer in layers if layer.op in _MULTIPLY),
        bytes_moved=sum(layer.bytes_moved() for layer in layers),
    )


@functools.cache
def known_costs() -> dict[str, NetworkCost]:
    """Returns the costs of registry networks at their native size and number of classes, by name.

    They were counted once by ``python -m export.costs``, as an export takes up to a minute.
    """
    rows = json.loads(COSTS_FILE.read_text()) if COSTS_FILE.exists() else {}
    return {name: NetworkCost(**row) for name, row in rows.items()}


def to_json(costs: dict[str, NetworkCost]) -> bytes:
    """Returns what :func:`known_costs` reads: a line a network, sorted by name."""
    lines = [f"{json.dumps(name)}: {json.dumps(asdict(costs[name]))}" for name in sorted(costs)]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def kind_without_weights(op: str) -> Kind:
    """Returns what an operator that has no weights does, by its ONNX or ONNX Runtime name."""
    if "Pool" in op:
        return "pooling"
    return "data" if op in (*VIEWS, *_COPIES) else "element-wise"


def _layer_cost(
    node: Any, shapes: dict[str, tuple[int, ...]], weights: set[str], constants: set[str]
) -> LayerCost:
    outputs = math.prod(shapes[node.output[0]])
    return LayerCost(
        name=node.name,
        module=_module(node),
        op=node.op_type,
        kind=_kind(node, shapes),
        macs=outputs * _macs_per_output(node, shapes),
        parameters=sum(math.prod(shapes[name]) for name in node.input if name in weights),
        outputs=outputs,
        inputs=sum(
            math.prod(shapes[name]) for name in node.input if name and name not in constants
        ),
    )


def _module(node: Any) -> str:
    # backbone.features.0.weight, and what the quantizer makes of it: ..._DequantizeLinear_Output
    paths = [name.partition(".weight") for name in node.input if ".weight" in name]
    return paths[0][0].removeprefix("backbone.") if paths else ""


def _kind(node: Any, shapes: dict[str, tuple[int, ...]]) -> Kind:
    if node.op_type == "Conv":
        _, channels, *kernel = shapes[node.input[1]]
        if any(a.name == "group" and a.i > 1 for a in node.attribute):
            return "depthwise" if channels == 1 else "grouped"
        return "pointwise" if set(kernel) == {1} else "convolution"
    return "linear" if node.op_type in _MULTIPLY else kind_without_weights(node.op_type)


def _macs_per_output(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type not in _MULTIPLY:
        return 0
    if node.op_type == "Conv":
        return math.prod(shapes[node.input[1]][1:])  # channels of one group x kernel
    transposed = any(a.name == "transA" and a.i for a in node.attribute)  # Gemm's only
    return shapes[node.input[0]][0 if transposed else -1]
