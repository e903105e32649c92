"""An int8 ONNX graph as a network of torch: ExecuTorch lowers only what torch exports.

Each operator becomes torch's of the same meaning, and QuantizeLinear and DequantizeLinear become
those of ``quantized_decomposed``, by which XNNPACK's partitioner knows int8 operators. They keep
the very scales, zero points, weights and biases of the graph, so that what was chosen for it in
:mod:`export.quantization` holds on a phone, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.fx import Graph, GraphModule, Node

from core.errors import UserError
from export.known_operators import check_operators
from export.node_attributes import attributes

Array = npt.NDArray[Any]
_UINT8_ZERO = 128  # XNNPACK's int8 is the graph's uint8 less this
LEVELS = (-128, 127, torch.int8)
_WEIGHT_LEVELS = (-127, 127, torch.int8)


@dataclass(frozen=True, slots=True)
class Steps:
    """How the int8 levels of an activation stand for real numbers: scale * (level - zero)."""

    scale: float
    zero: int


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the graph: int8 if it has steps, else float32."""

    node: Node
    steps: Steps | None = None


@dataclass(frozen=True, slots=True)
class Weight:
    """A constant of the graph: levels with a scale each index of ``axis``, or what they stand for.

    Attributes:
        levels: int8 or int32; float32 if ``scale`` is None.
        scale: float32 (n,), or None.
        axis: of ``levels``.
    """

    levels: Array
    scale: npt.NDArray[np.float32] | None = None
    axis: int = 0

    @property
    def real(self) -> Array:
        """Returns the float32 numbers that it stands for."""
        if self.scale is None:
            return self.levels
        others = tuple(axis for axis in range(self.levels.ndim) if axis != self.axis)
        real: Array = self.levels.astype(np.float32) * np.expand_dims(self.scale, others)
        return real

    @property
    def transposed(self) -> Weight:
        """Returns that of a matrix, transposed."""
        return Weight(self.levels.T, self.scale, 1 - self.axis)


class Converter:
    """Converts one graph, node by node, for one image.

    Args:
        model: ``ModelProto`` in QDQ form.
    """

    def __init__(self, model: Any) -> None:
        import onnx
        import torch.ao.quantization.fx._decomposed  # noqa: F401  # it defines the operators
        from onnx.numpy_helper import to_array

        self._onnx = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
        batch = self._onnx.input[0].type.tensor_type.shape.dim[0].dim_param
        infos = (*self._onnx.value_info, *self._onnx.output)
        self._sizes = {info.name: _for_one_image(info, batch) for info in infos}
        self._graph, self._root = Graph(), nn.Module()
        self._weights = {each.name: Weight(to_array(each)) for each in self._onnx.initializer}
        self._values: dict[str, Value] = {}
        self._readers: dict[str, list[Any]] = defaultdict(list)
        for node in self._onnx.node:
            for name in node.input:
                self._readers[name].append(node)

    def convert(self, handlers: Mapping[str, Handler]) -> GraphModule:
        """Returns the graph as a network of torch.

        Args:
            handlers: what converts a node, by its operator.

        Raises:
            UserError: an operator, or a form of it, that is not taken; the message names it.
        """
        check_operators(self._onnx, handlers, "executorch", "torch")
        (pixels,), (logits,) = self._onnx.input, self._onnx.output
        self._values[pixels.name] = Value(self._graph.placeholder("pixels"))
        for node in self._onnx.node:
            handlers[node.op_type](self, node)
        self._graph.output(self.real(logits.name))
        return GraphModule(self._root, self._graph).eval()

    def refusal(self, node: Any, why: str) -> UserError:
        """Returns the error that says why a node is not taken."""
        return UserError(f"executorch: {node.op_type} {node.name or node.output[0]}: {why}")

    def call(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Node:
        """Returns the node that calls ``function``."""
        return self._graph.call_function(function, arguments, named)

    def give(self, node: Any, result: Node, name: str | None = None) -> None:
        """Makes ``result`` the float32 tensor that a node of the ONNX graph makes."""
        self._values[name or node.output[0]] = Value(result)

    def real(self, name: str) -> Node:
        """Returns the float32 tensor of that name.

        Whoever reads an int8 tensor gets a dequantizing node of its own: XNNPACK's partitioner
        decides by it whether its reader becomes an int8 operator.
        """
        if (weight := self._weights.get(name)) is not None:
            return self.constant(weight.real)
        return self._dequantized(self._values[name])

    def _dequantized(self, value: Value) -> Node:
        if value.steps is None:
            return value.node
        dequantize = torch.ops.quantized_decomposed.dequantize_per_tensor.default
        return self.call(dequantize, value.node, value.steps.scale, value.steps.zero, *LEVELS)

    def real_in(self, name: str, steps: Steps) -> Node:
        """Returns the float32 tensor of that name, rounded to ``steps`` if it is not yet."""
        value = self._values[name]
        if value.steps != steps:
            value = self.rounded(self.real(name), steps)
        return self._dequantized(value)

    def rounded(self, value: Node, steps: Steps) -> Value:
        """Returns a float32 tensor rounded to int8."""
        quantize = torch.ops.quantized_decomposed.quantize_per_tensor.default
        return Value(self.call(quantize, value, steps.scale, steps.zero, *LEVELS), steps)

    def weight(self, node: Any, index: int) -> Weight:
        """Returns an input of a node that must be a constant."""
        weight = self._weights.get(node.input[index])
        if weight is None:
            raise self.refusal(node, f"its {node.input[index]} is computed, and must be a constant")
        return weight

    def numbers(self, node: Any, index: int) -> list[Any]:
        """Returns the numbers of a constant input of a node; [] if it has none."""
        if len(node.input) <= index or not node.input[index]:
            return []
        numbers: list[Any] = self.weight(node, index).real.reshape(-1).tolist()
        return numbers

    def constant(self, values: Array) -> Node:
        """Returns a new constant."""
        name = f"constant_{len(self._root._buffers)}"
        self._root.register_buffer(name, torch.from_numpy(np.array(values, order="C")))
        return self._graph.get_attr(name)

    def rounded_weight(self, weight: Weight) -> Node:
        """Returns int8 weights, dequantized by a node that XNNPACK's partitioner knows."""
        assert weight.scale is not None
        zeros = np.zeros(len(weight.scale), np.int64)
        return self.call(
            torch.ops.quantized_decomposed.dequantize_per_channel.default,
            *(self.constant(each) for each in (weight.levels, weight.scale, zeros)),
            weight.axis,
            *_WEIGHT_LEVELS,
        )

    def sizes(self, name: str) -> list[int]:
        """Returns the shape of a tensor for one image.

        Raises:
            UserError: it is known only as the graph runs.
        """
        sizes = self._sizes.get(name, [])
        if not sizes or 0 in sizes:
            raise UserError(f"executorch: the sizes of {name} are known only as the graph runs")
        return sizes

    def rounds(self, name: str) -> Any | None:
        """Returns the QuantizeLinear that alone reads a tensor, or its activation; else None."""
        readers = self._readers[name]
        if len(readers) == 1 and readers[0].op_type in ("Relu", "Clip"):
            readers = self._readers[readers[0].output[0]]
        return readers[0] if [each.op_type for each in readers] == ["QuantizeLinear"] else None

    def quantize(self, node: Any) -> None:
        """Takes a QuantizeLinear."""
        steps, source = self.steps(node), self._values[node.input[0]]
        if source.steps != steps:
            source = self.rounded(self.real(node.input[0]), steps)
        self._values[node.output[0]] = source

    def dequantize(self, node: Any) -> None:
        """Takes a DequantizeLinear: of an activation, its readers dequantize it themselves."""
        levels = self._weights.get(node.input[0])
        if levels is None:
            self._values[node.output[0]] = self._reread(self._values[node.input[0]], node)
            return
        if any(self.numbers(node, 2)):
            raise self.refusal(node, "weights with a zero point are not taken")
        scale = np.array(self.numbers(node, 1), np.float32)
        axis = attributes(node).get("axis", 1) % max(levels.levels.ndim, 1)
        scale = np.broadcast_to(scale, levels.levels.shape[axis])
        self._weights[node.output[0]] = Weight(levels.levels, scale, axis)

    def _reread(self, value: Value, node: Any) -> Value:
        """Returns a tensor as a DequantizeLinear reads it: its levels times a scale of its own."""
        steps = self.steps(node)
        if value.steps is None or value.steps == steps:
            return value
        assert value.steps.zero == steps.zero
        factor = steps.scale / value.steps.scale
        return Value(self.call(torch.mul, self._dequantized(value), factor))

    def steps(self, node: Any) -> Steps:
        """Returns the steps of a QuantizeLinear or DequantizeLinear of an activation."""
        zero = self.weight(node, 2).levels
        steps = set(zip(self.numbers(node, 1), zero.reshape(-1).tolist(), strict=True))
        if len(steps) > 1:
            raise self.refusal(node, "it has a scale for each channel of an activation")
        ((scale, level),) = steps
        return Steps(scale, level - (_UINT8_ZERO if zero.dtype == np.uint8 else 0))


def _for_one_image(info: Any, batch: str) -> list[int]:
    """Returns the sizes of a tensor, 0 where they are not known."""
    dims = info.type.tensor_type.shape.dim
    return [1 if batch and dim.dim_param == batch else dim.dim_value for dim in dims]


Handler = Callable[[Converter, Any], None]
