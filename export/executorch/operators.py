"""Each ONNX operator as torch's of the same meaning.

A handler takes a :class:`Converter` and a node, asks for the node's inputs, and gives its result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.fx import Node
from torch.nn import functional

from export.executorch.converter import LEVELS, Converter, Handler
from export.node_attributes import attributes, pads_itself


def _conv(c: Converter, node: Any) -> None:
    values, weight = attributes(node), c.weight(node, 1)
    if pads_itself(values) or weight.levels.ndim != 4:
        raise c.refusal(node, "only 2D convolutions with pads of their own are taken")
    source = c.real(node.input[0])
    top, left, bottom, right = values.get("pads", [0] * 4)
    padding = [top, left]
    if padding != [bottom, right]:  # torch pads both sides alike
        source, padding = c.call(functional.pad, source, [left, right, top, bottom]), [0, 0]
    bias = c.constant(c.weight(node, 2).real) if len(node.input) > 2 else None
    rounded = weight.scale is not None and c.rounds(node.output[0]) is not None
    kernel = c.rounded_weight(weight) if rounded else c.constant(weight.real)
    strides, dilations = (values.get(each, [1, 1]) for each in ("strides", "dilations"))
    groups = values.get("group", 1)
    c.give(
        node, c.call(functional.conv2d, source, kernel, bias, strides, padding, dilations, groups)
    )


def _batch_norm(c: Converter, node: Any) -> None:
    """One that follows no convolution, and so is in none."""
    scale, shift, mean, variance = (c.constant(c.weight(node, i).real) for i in range(1, 5))
    epsilon = attributes(node).get("epsilon", 1e-5)
    source, training, momentum = c.real(node.input[0]), False, 0.0
    arguments = (mean, variance, scale, shift, training, momentum, epsilon)
    c.give(node, c.call(functional.batch_norm, source, *arguments))


def _gemm(c: Converter, node: Any) -> None:
    values, weight = attributes(node), c.weight(node, 1)
    if values.get("alpha", 1.0) != 1 or values.get("beta", 1.0) != 1 or values.get("transA"):
        raise c.refusal(node, "it scales or transposes its input")
    if weight.levels.ndim != 2:
        raise c.refusal(node, "its second input must be a matrix")
    rows = weight if values.get("transB") else weight.transposed
    source = c.real(node.input[0])
    bias = c.constant(c.weight(node, 2).real) if len(node.input) > 2 else None
    if weight.scale is None:
        c.give(node, c.call(functional.linear, source, c.constant(rows.real), bias))
        return
    if c.rounds(node.output[0]) is None:
        source = _rounded_as_it_comes(c, source)
    c.give(node, c.call(functional.linear, source, c.rounded_weight(rows), bias))


def _rounded_as_it_comes(c: Converter, source: Node) -> Node:
    """Returns values rounded to the int8 steps that fit them, chosen as the program runs.

    So XNNPACK has an operator of int8 weights whose result stays in float32.
    """
    import operator

    ops = torch.ops.quantized_decomposed
    least = torch.finfo(torch.float32).eps
    chosen = c.call(ops.choose_qparams.tensor, source, *LEVELS[:2], least, torch.int8)
    steps = [c.call(operator.getitem, chosen, index) for index in range(2)]
    levels = c.call(ops.quantize_per_tensor.tensor, source, *steps, *LEVELS)
    return c.call(ops.dequantize_per_tensor.tensor, levels, *steps, *LEVELS)


def _elementwise(function: Callable[..., Any]) -> Handler:
    def handle(c: Converter, node: Any) -> None:
        c.give(node, c.call(function, *(c.real(name) for name in node.input)))

    return handle


def _gelu(c: Converter, node: Any) -> None:
    kind = attributes(node).get("approximate", b"none").decode()
    c.give(node, c.call(functional.gelu, c.real(node.input[0]), approximate=kind))


def _clip(c: Converter, node: Any) -> None:
    low, high = (c.numbers(node, index) for index in (1, 2))
    source = c.real(node.input[0])
    if low and high:  # which XNNPACK fuses with the operator before it
        c.give(node, c.call(functional.hardtanh, source, low[0], high[0]))
    else:
        ends = [end[0] if end else None for end in (low, high)]
        c.give(node, c.call(torch.clamp, source, *ends))


def _hard_sigmoid(c: Converter, node: Any) -> None:
    values = attributes(node)
    sloped = c.call(torch.mul, c.real(node.input[0]), values.get("alpha", 0.2))
    shifted = c.call(torch.add, sloped, values.get("beta", 0.5))
    c.give(node, c.call(functional.hardtanh, shifted, 0.0, 1.0))


def _mean(c: Converter, node: Any) -> None:
    """GlobalAveragePool, and ReduceMean over constant axes."""
    axes, keep = [2, 3], True
    if node.op_type == "ReduceMean":
        axes, keep = c.numbers(node, 1), bool(attributes(node).get("keepdims", 1))
    mean = c.call(torch.mean, c.real(node.input[0]), axes, True)  # XNNPACK's keeps its axes
    c.give(node, mean if keep else c.call(torch.reshape, mean, c.sizes(node.output[0])))


def _pool(c: Converter, node: Any) -> None:
    values, average = attributes(node), node.op_type == "AveragePool"
    pads = values.get("pads", [0] * 4)
    if pads_itself(values) or len(values["kernel_shape"]) != 2 or pads[:2] != pads[2:]:
        raise c.refusal(node, "only 2D windows with the same pads on both sides are taken")
    source, ceil = c.real(node.input[0]), bool(values.get("ceil_mode"))
    window = values["kernel_shape"], values.get("strides", [1, 1]), pads[:2]
    if average:
        counted = bool(values.get("count_include_pad"))
        c.give(node, c.call(functional.avg_pool2d, source, *window, ceil, counted))
    else:
        dilations = values.get("dilations", [1, 1])
        c.give(node, c.call(functional.max_pool2d, source, *window, dilations, ceil))


def _concat(c: Converter, node: Any) -> None:
    """XNNPACK joins only int8 tensors of the same steps."""
    rounds = c.rounds(node.output[0])
    parts = [
        c.real(name) if rounds is None else c.real_in(name, c.steps(rounds)) for name in node.input
    ]
    c.give(node, c.call(torch.cat, parts, attributes(node)["axis"]))


def _split(c: Converter, node: Any) -> None:
    axis, start = attributes(node).get("axis", 0), 0
    for name in node.output:
        size = c.sizes(name)[axis]
        c.give(node, c.call(torch.narrow, c.real(node.input[0]), axis, start, size), name)
        start += size


def _reshape(c: Converter, node: Any) -> None:
    """Reshape, Flatten, Squeeze and Unsqueeze: the shapes say it all."""
    c.give(node, c.call(torch.reshape, c.real(node.input[0]), c.sizes(node.output[0])))


def _transpose(c: Converter, node: Any) -> None:
    c.give(node, c.call(torch.permute, c.real(node.input[0]), list(attributes(node)["perm"])))


def _cast(c: Converter, node: Any) -> None:
    import onnx

    if attributes(node)["to"] != onnx.TensorProto.FLOAT:
        raise c.refusal(node, "only casts to float32 are taken")
    c.give(node, c.call(torch.Tensor.float, c.real(node.input[0])))


def _identity(c: Converter, node: Any) -> None:
    c.give(node, c.real(node.input[0]))


HANDLERS: dict[str, Handler] = {
    "Add": _elementwise(torch.add),
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Conv": _conv,
    "DequantizeLinear": Converter.dequantize,
    "Div": _elementwise(torch.div),
    "Dropout": _identity,
    "Flatten": _reshape,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _mean,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _elementwise(functional.hardswish),
    "Identity": _identity,
    "MatMul": _gemm,
    "MaxPool": _pool,
    "Mul": _elementwise(torch.mul),
    "QuantizeLinear": Converter.quantize,
    "ReduceMean": _mean,
    "Relu": _elementwise(functional.relu),
    "Reshape": _reshape,
    "Sigmoid": _elementwise(torch.sigmoid),
    "Split": _split,
    "Squeeze": _reshape,
    "Sub": _elementwise(torch.sub),
    "Tanh": _elementwise(torch.tanh),
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
