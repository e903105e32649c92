"""Converts an ONNX graph, in float32 or in QDQ form, to a .tflite file.

Each operator becomes TFLite's of the same meaning. An int8 one becomes a single int8 operator with
the very scales, zero points, weights and biases that the graph has, so that what was chosen for it
in :mod:`export.quantization` holds on a phone, too.

Why not litert-torch: it asks for versions of typing-extensions that pydantic cannot be imported
with, brings jax and transformers, and knows nothing of those scales.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from export.known_operators import check_operators
from export.litert.layout import Order, in_order, stored
from export.litert.writer import BATCH, Array, Shape, Steps, Writer
from export.one_image import Unconvertible

DEQUANTIZE, QUANTIZE = "DequantizeLinear", "QuantizeLinear"
_UINT8_ZERO = 128  # TFLite's int8 is the graph's uint8 less this


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the graph, as the file holds it.

    Attributes:
        tensor: its index.
        shape: ONNX's; the batch is :data:`BATCH`.
        order: how it is stored; see :mod:`export.litert.layout`.
        steps: of an int8 tensor; None of a float32 one.
    """

    tensor: int
    shape: Shape
    order: Order
    steps: Steps | None = None


@dataclass(frozen=True, slots=True)
class Weight:
    """A constant of the graph: float32, or int8 or int32 and its steps."""

    values: Array
    steps: Steps | None = None

    @property
    def real(self) -> Array:
        """Returns the float32 numbers that it stands for."""
        if self.steps is None:
            return self.values
        shape = [1] * self.values.ndim
        if self.steps.scale.size > 1:
            shape[self.steps.axis] = -1
        levels = self.values.astype(np.float32) - np.float32(self.steps.zero)
        real: Array = levels * self.steps.scale.reshape(shape)
        return real


Handler = Callable[["Converter", Any], None]


class Converter:
    """Converts one graph; handlers in :mod:`export.litert.operators` ask it for their tensors.

    Args:
        model: ONNX ``ModelProto``: uint8 ("batch", H, W, 3) in, float32 ("batch", classes) out.
        half: whether weights are stored as float16; what is computed stays float32.
    """

    def __init__(self, model: Any, *, half: bool = False) -> None:
        import onnx
        from onnx.numpy_helper import to_array

        self.writer = Writer()
        graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
        self._graph = graph
        self._half = half
        batch = graph.input[0].type.tensor_type.shape.dim[0].dim_param
        infos = (*graph.input, *graph.value_info, *graph.output)
        self._shapes = {info.name: _shape(info, batch) for info in infos}
        self._weights = {tensor.name: Weight(to_array(tensor)) for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant":
                self._weights[node.output[0]] = Weight(to_array(node.attribute[0].t))
        self._values: dict[str, Value] = {}
        self._asked: dict[str, Steps] = {}  # of levels that an operator before has rounded to
        self._readers: dict[str, list[Any]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self._readers[name].append(node)
        self._makers = {name: node for node in graph.node for name in node.output}
        self._outputs = {info.name for info in graph.output}
        self._done: set[str] = set()  # outputs of nodes that an operator before them has taken in
        self._made: dict[tuple[int, str], int] = {}

    def convert(self, handlers: Mapping[str, Handler], metadata: Mapping[str, bytes]) -> bytes:
        """Returns the file.

        Args:
            handlers: what takes a node, by its operator.
            metadata: what else the file holds, by its name.

        Raises:
            Unconvertible: an operator or a form of it that has no handler.
        """
        check_operators(self._graph, handlers, "litert", "TFLite")
        (pixels,), (logits,) = self._graph.input, self._graph.output
        shape = self._shapes[pixels.name]
        # The numbers 0 to 255 as integers of step 1: XNNPACK dequantizes them, and does not cast.
        steps = Steps(np.ones(1, np.float32))
        source = self.writer.tensor(pixels.name, shape, np.uint8, steps)
        self._values[pixels.name] = Value(source, shape, in_order(shape), steps)
        for node in self._graph.node:
            if node.output[0] in self._done:
                continue
            handlers[node.op_type](self, node)
        result = self.real(logits.name)
        result = self.ordered(result, in_order(result.order))
        self.writer.rename(result.tensor, logits.name)
        return self.writer.finish(source, result.tensor, metadata)

    def refusal(self, node: Any, why: str) -> Unconvertible:
        """Returns the error that says why a node cannot be converted."""
        return Unconvertible(f"litert: {node.op_type} {node.name or node.output[0]}: {why}")

    def weight(self, name: str) -> Weight | None:
        """Returns the constant of that name, or None."""
        return self._weights.get(name)

    def constant(self, node: Any, index: int) -> Array:
        """Returns an input of a node that must be a constant.

        Raises:
            Unconvertible: it is computed.
        """
        weight = self._weights.get(node.input[index])
        if weight is None:
            raise self.refusal(node, f"its {node.input[index]} is computed, and must be a constant")
        return weight.real

    def shape(self, name: str) -> Shape:
        """Returns ONNX's shape of a tensor.

        Raises:
            Unconvertible: it is known only as the graph runs.
        """
        shape = self._shapes.get(name)
        if not shape or 0 in shape:
            raise Unconvertible(f"litert: the sizes of {name} are known only as the graph runs")
        return shape

    def value(self, name: str) -> Value:
        """Returns the tensor of that name: int8 where the graph has just dequantized it."""
        return self._values[name]

    def real(self, name: str) -> Value:
        """Returns the float32 tensor of that name."""
        value = self._values[name]
        if value.steps is None:
            return value
        made = self._made.get((value.tensor, "real"))
        if made is None:
            made = self.writer.tensor(f"{name}/real", stored(value.shape, value.order), np.float32)
            self.writer.operator("DEQUANTIZE", [value.tensor], [made], options="DequantizeOptions")
            self._made[value.tensor, "real"] = made
        return Value(made, value.shape, value.order)

    def ordered(self, value: Value, order: Order) -> Value:
        """Returns ``value`` stored in ``order``: itself, or what a TRANSPOSE makes of it."""
        if value.order == order:
            return value
        key = value.tensor, str(order)
        if key not in self._made:
            permutation = [value.order.index(axis) for axis in order]
            made = self.new(f"transposed/{value.tensor}", value.shape, order, value.steps)
            axes = self.writer.constant("axes", np.array(permutation, np.int32))
            self.writer.operator(
                "TRANSPOSE",
                [value.tensor, axes],
                [made.tensor],
                options="TransposeOptions",
                version=4 if len(order) > 4 else None,
            )
            self._made[key] = made.tensor
        return Value(self._made[key], value.shape, order, value.steps)

    def new(self, name: str, shape: Shape, order: Order, steps: Steps | None = None) -> Value:
        """Returns a new tensor, for an operator to fill: int8 if it has steps, else float32."""
        dtype = np.float32 if steps is None else np.int8
        return Value(
            self.writer.tensor(name, stored(shape, order), dtype, steps), shape, order, steps
        )

    def give(self, name: str, value: Value) -> None:
        """Makes ``value`` the tensor of that name."""
        self._values[name] = value

    def maker(self, name: str) -> Any | None:
        """Returns the node that makes a tensor; None of what the graph is given."""
        return self._makers.get(name)

    def only_reader(self, name: str) -> Any | None:
        """Returns the one node that reads a tensor; None if there are more, or it is a result."""
        readers = self._readers[name]
        return readers[0] if len(readers) == 1 and name not in self._outputs else None

    def absorb(self, node: Any) -> None:
        """Marks a node as done: the operator before it does its work, too."""
        self._done.add(node.output[0])

    def steps_of(self, name: str) -> Steps | None:
        """Returns the steps that a tensor is rounded to by the one node that reads it, or None."""
        reader = self.only_reader(name)
        if reader is None or reader.op_type != QUANTIZE:
            return None
        return self.steps(reader)

    def give_rounded(self, name: str, value: Value) -> None:
        """Makes an int8 ``value`` what rounds the tensor ``name``, and marks that node as done."""
        rounds = self.only_reader(name)
        assert rounds is not None
        self.absorb(rounds)
        self._values[rounds.output[0]] = value
        self._asked[rounds.output[0]] = self.steps(rounds)

    def steps(self, node: Any) -> Steps:
        """Returns the steps of a QuantizeLinear or DequantizeLinear of an activation.

        Raises:
            Unconvertible: they differ from channel to channel, which int8 activations cannot.
        """
        scale = np.atleast_1d(self.constant(node, 1)).astype(np.float32)
        zero = np.atleast_1d(self._weights[node.input[2]].values)
        if len(set(zip(scale.tolist(), zero.tolist(), strict=True))) > 1:
            raise self.refusal(node, "it has a scale for each channel of an activation")
        shift = _UINT8_ZERO if zero.dtype == np.uint8 else 0
        return Steps(scale[:1], int(zero[0]) - shift)

    def dequantize(self, node: Any) -> None:
        """Takes a DequantizeLinear: its result is known by its integers."""
        source, result = node.input[0], node.output[0]
        if source not in self._weights:
            value = self._values[source]
            self._values[result] = self._reread(
                value, self._asked.get(source, value.steps), self.steps(node)
            )
            return
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        levels = self._weights[source].values
        scale = np.atleast_1d(self._weights[node.input[1]].values).astype(np.float32)
        zero = self._weights[node.input[2]].values if len(node.input) > 2 else np.zeros(1, np.int32)
        if np.any(zero):
            raise self.refusal(node, "weights with a zero point are not taken")
        axis = attributes.get("axis", 1) if scale.size > 1 else 0
        self._weights[result] = Weight(levels, Steps(scale, 0, axis))

    def _reread(self, value: Value, asked: Steps | None, steps: Steps) -> Value:
        """Returns the same integers in other steps: by a MUL, as they are a tensor's own.

        Args:
            value: the tensor.
            asked: steps that the graph rounds it to; an operator of TFLite may have had others.
            steps: those that the graph reads it with.
        """
        if asked is None or steps.same(asked):
            return value
        made = self.new(f"scaled/{value.tensor}", value.shape, value.order, steps)
        level = np.iinfo(np.int8).max
        factor = Steps(steps.scale / asked.scale / np.float32(level))
        number = self.writer.constant("factor", np.array([level], np.int8), factor)
        self.writer.operator("MUL", [value.tensor, number], [made.tensor], options="MulOptions")
        return made

    def quantize(self, node: Any) -> None:
        """Takes a QuantizeLinear whose input no int8 operator has made."""
        value, steps = self._values[node.input[0]], self.steps(node)
        if steps.same(value.steps):
            self._values[node.output[0]] = value
        else:
            self._values[node.output[0]] = self.rounded(node.output[0], value, steps)

    def rounded(self, name: str, value: Value, steps: Steps) -> Value:
        """Returns ``value`` in other int8 steps: itself where it has them already."""
        if steps.same(value.steps):
            return value
        made = self.new(name, value.shape, value.order, steps)
        self.writer.operator("QUANTIZE", [value.tensor], [made.tensor], options="QuantizeOptions")
        return made

    def stored_weight(self, name: str, values: Array) -> int:
        """Returns the index of float32 weights, or of what restores them where float16 is kept."""
        if not self._half:
            return self.writer.constant(name, values.astype(np.float32))
        largest = np.finfo(np.float16).max
        source = self.writer.constant(
            f"{name}/half", np.clip(values, -largest, largest).astype(np.float16)
        )
        made = self.writer.tensor(name, values.shape, np.float32)
        self.writer.operator("DEQUANTIZE", [source], [made], options="DequantizeOptions", version=3)
        return made


def _shape(info: Any, batch: str) -> Shape:
    """Returns the sizes of a tensor, 0 where they are not known."""
    sizes = info.type.tensor_type.shape.dim
    return tuple(BATCH if batch and each.dim_param == batch else each.dim_value for each in sizes)
