"""Counts the costs of a network in its exported graph, where folded batch norms cost nothing.

Only parameters are counted in the torch network.
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

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}  # per value
_MULTIPLY = ("Conv", "Gemm", "MatMul")  # operators whose multiply-accumulates are counted
VIEWS = ("Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze")  # operators that copy no data
_COPIES = (
    "Cast", "Concat", "DequantizeLinear", "QuantizeLinear", "Slice", "Split", "Transpose",
    "ReorderInput", "ReorderOutput",  # between NCHW and ONNX Runtime's blocked CPU layout
)  # fmt: skip
Kind = Literal[
    "convolution", "pointwise", "depthwise", "grouped", "linear", "pooling", "element-wise", "data"
]
COSTS_FILE = Path(__file__).with_name("costs.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerCost:
    """The cost of one node of the graph, for one image.

    Attributes:
        name: name of the node.
        module: path of the torch module that its weights come from; empty without weights.
        op: ONNX operator.
        kind: the papers' term: a convolution is depthwise with one input channel per group,
            grouped with more, pointwise if 1x1; ``data`` copies, casts or reshapes.
        macs: multiply-accumulates; only convolutions and matrix products have any.
        parameters: elements of weights and biases, and of a norm's statistics.
        outputs: elements of its output.
        inputs: elements of its inputs, without weights.
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
        """Returns bytes of input, weights and output, each counted once, per image.

        Weights are read once per ``batch``. It is the ShuffleNetV2 paper's memory access cost.
        """
        if self.op in VIEWS:
            return 0
        return ((self.inputs + self.outputs) * batch + self.parameters) * BYTES[precision]


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkCost:
    """The cost of a whole network, for one image.

    Attributes:
        macs: multiply-accumulates of convolutions and matrix products.
        parameters: elements of the torch network's weights and biases, as papers count them: norms
            included, their running statistics not, whether or not they are in the graph.
        activations: elements of the outputs of convolutions and matrix products
            (Designing Network Design Spaces, arXiv 2003.13678, Section 2).
        bytes_moved: sum over all layers in float32, without layer fusion.
    """

    macs: int
    parameters: int
    activations: int
    bytes_moved: int

    @property
    def intensity(self) -> float:
        """Returns FLOPs per byte moved: the roofline model's arithmetic intensity."""
        return 2 * self.macs / self.bytes_moved


def layer_costs(model: Any) -> list[LayerCost]:
    """Returns the cost of every node of an ONNX ``ModelProto``, in order.

    Weights are float constants, or dequantized from constants. The first dimension of the graph's
    input is taken as 1.
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
    weights = {  # without scalars, such as the bounds of a Clip
        tensor.name for tensor in graph.initializer if tensor.dims and tensor.data_type in floating
    }
    constants = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in constants:
            weights.add(node.output[0])
            constants.add(node.output[0])
    return [_layer_cost(node, shapes, weights, constants) for node in graph.node]


def count_parameters(network: nn.Module) -> int:
    """Counts the elements of all weights and biases of a torch network, shared ones once."""
    return sum(parameter.numel() for parameter in network.parameters())


def network_cost(model: Any, *, parameters: int) -> NetworkCost:
    """Returns the cost of an ONNX ``ModelProto``; see :func:`layer_costs`.

    Args:
        model: the graph.
        parameters: of the torch network, by :func:`count_parameters`. The graph of an untrained
            network has fewer: zero biases are dropped and equal tensors shared.
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
    """Returns the costs of registry networks by name, at native size and number of classes.

    They are read from a file written by ``python -m export.costs``, as counting one takes up to a
    minute.
    """
    rows = json.loads(COSTS_FILE.read_text()) if COSTS_FILE.exists() else {}
    return {name: NetworkCost(**row) for name, row in rows.items()}


def to_json(costs: dict[str, NetworkCost]) -> bytes:
    """Returns the JSON that :func:`known_costs` reads: one line per network, sorted by name."""
    lines = [f"{json.dumps(name)}: {json.dumps(asdict(costs[name]))}" for name in sorted(costs)]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def kind_without_weights(op: str) -> Kind:
    """Returns the kind of an operator without weights, by its ONNX or ONNX Runtime name."""
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
    # backbone.features.0.weight, or after quantization ..._DequantizeLinear_Output
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
        return math.prod(shapes[node.input[1]][1:])  # input channels per group x kernel size
    transposed = any(a.name == "transA" and a.i for a in node.attribute)  # only Gemm has it
    return shapes[node.input[0]][0 if transposed else -1]
