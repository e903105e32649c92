"""An int8 graph in QDQ form as a torch network that is trained through its roundings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.errors import UserError
from training.qat.operators import OPERATORS

QUANTIZE, DEQUANTIZE = "QuantizeLinear", "DequantizeLinear"
# Their results lie between 0 and 1: that range is kept, as integer kernels rely on it.
_BOUNDED = ("HardSigmoid", "Sigmoid", "Softmax")


class FakeQuantize(torch.autograd.Function):
    """Rounds values to multiples of a step between two levels; its gradients see no rounding.

    Values within the range get the gradient of their result, others none; the step gets that of
    learned step size quantization (S. Esser et al., arXiv 1902.08153, section 2.1).
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, step: Tensor, low: float, high: float) -> Tensor:
        """Returns ``values``, rounded as QuantizeLinear and DequantizeLinear do.

        Args:
            ctx: context of autograd.
            values: any shape.
            step: one for all, or one for each channel; broadcast to the values.
            low: smallest level, relative to the zero point.
            high: largest level, likewise.
        """
        ctx.save_for_backward(values, step)
        ctx.ends = low, high
        return (values / step).round_().clamp_(low, high).mul_(step)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        """Returns the gradients of values and step."""
        (gradient,), (values, step) = gradients, ctx.saved_tensors
        exact = values / step
        clipped = exact.clamp(*ctx.ends)
        inside = clipped == exact
        of_step = None
        if ctx.needs_input_grad[1]:
            error = clipped.round_().sub_(exact.mul_(inside))
            of_step = error.mul_(gradient).sum_to_size(step.shape)
        return gradient * inside, of_step, None, None


class QuantizedNetwork(nn.Module):
    """The network that an int8 graph stands for: uint8 (N, H, W, 3) to float32 logits (N, C).

    Its weights, biases and ranges are those of the graph times or plus a learned correction, which
    is zero at first: so it begins with the answers of the graph. Zero points stay.

    Args:
        content: serialized ONNX ``ModelProto`` in QDQ form, all of whose Conv and Gemm are int8.
        limit: largest integer weight; the smallest is its negative.

    Raises:
        UserError: it has an operator that is not known here.
    """

    graph: Tensor  # uint8: the content

    def __init__(self, content: bytes, *, limit: int) -> None:
        super().__init__()
        self.register_buffer("graph", torch.frombuffer(bytearray(content), dtype=torch.uint8))
        self.register_buffer("limit", torch.tensor(limit))
        self._high = limit
        self._read(content)

    def _read(self, content: bytes) -> None:
        import onnx
        from onnx.helper import get_attribute_value
        from onnx.numpy_helper import to_array

        graph = onnx.ModelProto.FromString(content).graph
        arrays = {tensor.name: to_array(tensor) for tensor in graph.initializer}
        self._places: dict[str, int] = {}  # of what is learned, by the name of its tensor
        self.corrections = nn.ParameterList()
        self._constants: dict[str, str] = {}  # names of buffers
        for index, (name, array) in enumerate(arrays.items()):
            self._constants[name] = f"constant{index}"
            # A new array, as a file's cannot be written to.
            self.register_buffer(f"constant{index}", torch.tensor(array), persistent=False)
        makers = {name: node for node in graph.node for name in node.output}
        weights = set()
        self._biases: dict[str, tuple[str, str]] = {}  # scales of the layer's input and weight
        for node in graph.node:
            if node.op_type in ("Conv", "Gemm"):
                sources = [makers[name].input for name in node.input]
                weights.add(sources[1][0])
                if len(sources) == 3:
                    self._biases[sources[2][0]] = (sources[0][1], sources[1][1])
        kept = {node.input[1] for node in graph.node if self._bounded(node, makers)}
        self._nodes: list[tuple[str, dict[str, Any], list[str], list[str]]] = []
        for node in graph.node:
            if node.op_type not in (*OPERATORS, QUANTIZE, DEQUANTIZE):
                raise UserError(
                    f"{node.name or node.op_type}: quantization-aware fine-tuning does not know "
                    f"the operator {node.op_type} of this network; train another one"
                )
            values = {each.name: get_attribute_value(each) for each in node.attribute}
            self._nodes.append((node.op_type, values, list(node.input), list(node.output)))
            learned: list[str] = []
            if node.op_type == DEQUANTIZE and node.input[0] in weights:
                learned = node.input[:2]
            elif node.op_type == DEQUANTIZE and node.input[0] in self._biases:
                learned = node.input[:1]
            elif node.op_type == QUANTIZE and node.input[1] not in kept:
                learned = node.input[1:2]
            for name in learned:
                if name not in self._places:
                    self._places[name] = len(self.corrections)
                    self.corrections.append(nn.Parameter(torch.zeros(arrays[name].shape)))
        self._last = Counter(name for _, _, inputs, _ in self._nodes for name in inputs)
        self._input, self._output = graph.input[0].name, graph.output[0].name

    @staticmethod
    def _bounded(node: Any, makers: dict[str, Any]) -> bool:
        maker = makers.get(node.input[0])
        return node.op_type == QUANTIZE and maker is not None and maker.op_type in _BOUNDED

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns float32 logits (N, C) of uint8 pixels (N, H, W, 3)."""
        values: dict[str, Any] = {self._input: pixels}
        left = self._last.copy()
        for kind, attributes, inputs, outputs in self._nodes:
            if kind == QUANTIZE:
                results = [self._rounded(values[inputs[0]], *inputs[1:])]
            elif kind == DEQUANTIZE:
                name = inputs[0]  # what is rounded has been dequantized there
                results = [values[name] if name in values else self._weight(inputs, attributes)]
            else:
                given = [self._given(name, values) for name in inputs]
                made = OPERATORS[kind](attributes, *given)
                results = [made] if len(outputs) == 1 else list(made)
            values.update(zip(outputs, results, strict=True))
            for name in inputs:
                left[name] -= 1
                if not left[name]:
                    values.pop(name, None)
        logits: Tensor = values[self._output]
        return logits.float()

    def _given(self, name: str, values: dict[str, Any]) -> Tensor | None:
        if not name:
            return None
        found: Tensor = values[name] if name in values else self._constant(name)
        return found

    def _constant(self, name: str) -> Tensor:
        found: Tensor = getattr(self, self._constants[name])
        return found

    def _step(self, name: str) -> Tensor:
        """Returns the step between two levels, of the scale called ``name``."""
        step, place = self._constant(name), self._places.get(name)
        return step if place is None else step * self.corrections[place].exp()

    def _rounded(self, values: Tensor, scale: str, zero: str) -> Tensor:
        low, high = self._levels(zero)
        rounded: Tensor = FakeQuantize.apply(values, self._step(scale), low, high)
        return rounded

    def _levels(self, zero: str) -> tuple[int, int]:
        """Returns the ends of the levels of an activation, relative to its zero point."""
        point = self._constant(zero)
        ends = torch.iinfo(point.dtype)
        return ends.min - int(point), ends.max - int(point)

    def _weight(self, inputs: Sequence[str], attributes: dict[str, Any]) -> Tensor:
        """Returns what a DequantizeLinear makes of constants: rounded weights, or biases."""
        name, scale, *zero = inputs
        if name not in self._places:
            shift = self._constant(zero[0]).float() if zero else 0.0
            return (self._constant(name) - shift) * self._constant(scale)
        values, step, ends = self._exact(name, scale, attributes.get("axis", 1))
        rounded: Tensor = FakeQuantize.apply(values, step, *ends)
        return rounded

    def _exact(self, name: str, scale: str, axis: int) -> tuple[Tensor, Tensor, tuple[int, int]]:
        """Returns weights or biases before they are rounded, their step, and the ends of levels."""
        levels, correction = self._constant(name), self.corrections[self._places[name]]
        first = self._constant(scale)
        if name in self._biases:
            input_step, weight_step = map(self._step, self._biases[name])
            whole = torch.iinfo(torch.int32)
            exact = levels * first
            unit = exact.abs().amax().clamp(min=torch.finfo(first.dtype).tiny)
            return exact + unit * correction, input_step * weight_step, (whole.min, whole.max)
        sides = [-1 if index == axis else 1 for index in range(levels.ndim)]
        step, first = (
            each.view(sides) if each.ndim else each for each in (self._step(scale), first)
        )
        values = (levels + self._high * correction) * first
        return values, step, (-self._high, self._high)

    @torch.no_grad()
    def trained(self) -> bytes:
        """Returns the graph with all that was learned, as a serialized ONNX ``ModelProto``."""
        import onnx
        from onnx.numpy_helper import from_array

        model = onnx.ModelProto.FromString(self.graph.cpu().numpy().tobytes())
        learned: dict[str, Tensor] = {}
        for kind, attributes, inputs, _ in self._nodes:
            if kind not in (QUANTIZE, DEQUANTIZE):
                continue
            name, scale, *_ = inputs
            if kind == DEQUANTIZE and name in self._places:
                values, step, ends = self._exact(name, scale, attributes.get("axis", 1))
                levels = (values / step).round().clamp(*ends)
                learned[name] = levels.double().clamp(*ends)
                learned[scale] = step
            elif scale in self._places:
                learned[scale] = self._step(scale)
        for tensor in model.graph.initializer:
            if (value := learned.get(tensor.name)) is not None:
                old = self._constant(tensor.name)
                array: np.ndarray[Any, Any] = value.reshape(old.shape).to(old.dtype).cpu().numpy()
                tensor.CopyFrom(from_array(array, tensor.name))
        return bytes(model.SerializeToString())
