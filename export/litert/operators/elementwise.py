"""Operators that treat each number for itself."""

from __future__ import annotations

from typing import Any

import numpy as np

from export.litert.converter import Converter, Handler, Value
from export.litert.operators.results import emit, int8, laid, limits, with_activation
from export.litert.writer import Array, Steps
from export.node_attributes import attributes

_FEW_CHANNELS = 4  # of pixels: an operator that reads so few at a time takes long


def binary(kind: str, table: str) -> Handler:
    """Returns the handler of a sum, difference, product or quotient of two."""

    def handle(c: Converter, node: Any) -> None:
        result, activation = with_activation(c, node)
        tensors = [name for name in node.input if c.weight(name) is None]
        constants = [c.weight(name) for name in node.input]
        steps = None
        if kind != "DIV" and all(each is None or each.steps for each in constants):
            steps = int8(c, result, *tensors)
        known = [c.value(name) if steps else c.real(name) for name in tensors]
        first = max(known, key=lambda value: len(value.shape))
        if any(len(value.shape) != len(first.shape) for value in known):
            raise c.refusal(node, "its inputs have different numbers of axes")
        aligned = iter([c.ordered(value, first.order) for value in known])
        inputs = []
        for name, weight in zip(node.input, constants, strict=True):
            if weight is None:
                inputs.append(next(aligned).tensor)
            elif steps:
                levels = laid(weight.values.astype(np.int8), first)
                inputs.append(c.writer.constant(name, levels, weight.steps))
            else:
                inputs.append(c.writer.constant(name, _wide(laid(weight.real, first), first)))
        emit(
            c,
            result,
            kind,
            inputs,
            first.order,
            steps,
            options=table,
            fusedActivationFunction=c.writer.enum("ActivationFunctionType", activation),
        )

    return handle


def _wide(values: Array, beside: Value) -> Array:
    """Repeats the constants of a pixel's three channels to a row's width.

    XNNPACK takes what is contiguous at a time: 672 numbers instead of 3.
    """
    if values.ndim == 4 and values.shape[:3] == (1, 1, 1) and 1 < values.shape[3] < _FEW_CHANNELS:
        return np.tile(values, (1, 1, beside.shape[beside.order[2]], 1))
    return values


def unary(kind: str, table: str | None = None) -> Handler:
    """Returns the handler of an operator that TFLite has under another name."""

    def handle(c: Converter, node: Any) -> None:
        source = c.real(node.input[0])
        emit(c, node.output[0], kind, [source.tensor], source.order, options=table)

    return handle


def clip(c: Converter, node: Any) -> None:
    """Relu and Clip that no operator before them has taken in."""
    source = c.real(node.input[0])
    bounds = limits(c, node)
    kinds = {(0.0, np.inf): "RELU", (0.0, 6.0): "RELU6", (0.0, 1.0): "RELU_0_TO_1"}
    if bounds in kinds:
        emit(c, node.output[0], kinds[bounds], [source.tensor], source.order)
        return
    tensor = source.tensor
    for kind, bound in zip(("MAXIMUM", "MINIMUM"), bounds, strict=True):
        limit = c.writer.constant(kind.lower(), np.array(bound, np.float32))
        made = c.new(f"{node.output[0]}/{kind}", source.shape, source.order)
        c.writer.operator(kind, [tensor, limit], [made.tensor], options="MaximumMinimumOptions")
        tensor = made.tensor
    c.give(node.output[0], Value(tensor, source.shape, source.order))


def sigmoid(c: Converter, node: Any) -> None:
    """Between 0 and 1: int8 with the one scale that TFLite has for it, whatever was measured."""
    result = node.output[0]
    if int8(c, result, node.input[0]) is None:
        unary("LOGISTIC")(c, node)
        return
    steps = Steps(np.array([1 / 256], np.float32), -128)
    source = c.value(node.input[0])
    emit(c, result, "LOGISTIC", [source.tensor], source.order, steps)


def hard_sigmoid(c: Converter, node: Any) -> None:
    """Between 0 and 1, alpha * x + beta: XNNPACK knows only a clip to 0 and 6."""
    values, result = attributes(node), node.output[0]
    alpha, beta = (float(values.get(*each)) for each in (("alpha", 0.2), ("beta", 0.5)))
    value = c.real(node.input[0])
    if (slope := float(np.float32(6 * alpha))) != 1:
        value = _with_number(c, f"{result}/sloped", "MUL", value, _number(c, slope))
    value = _with_number(
        c, f"{result}/clipped", "ADD", value, _number(c, 6 * beta), activation="RELU6"
    )
    c.give(result, _with_number(c, result, "MUL", value, _number(c, 1 / 6)))


def _number(c: Converter, value: float) -> int:
    return c.writer.constant("number", np.array(value, np.float32))


def _with_number(
    c: Converter,
    name: str,
    kind: str,
    source: Value,
    number: int,
    *,
    activation: str = "NONE",
) -> Value:
    """Returns the sum or the product of a tensor and a number."""
    made = c.new(name, source.shape, source.order)
    c.writer.operator(
        kind,
        [source.tensor, number],
        [made.tensor],
        options=f"{kind.title()}Options",
        fusedActivationFunction=c.writer.enum("ActivationFunctionType", activation),
    )
    return made


def batch_norm(c: Converter, node: Any) -> None:
    """One that follows no convolution, and so is in none: a product and a sum for each channel."""
    source, result = c.real(node.input[0]), node.output[0]
    scale, shift, mean, variance = (c.constant(node, index) for index in range(1, 5))
    factor = scale / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
    shape = [1, -1] + [1] * (len(source.shape) - 2)

    def per_channel(name: str, values: Array) -> int:
        number = laid(values.reshape(shape).astype(np.float32), source)
        return c.stored_weight(f"{result}/{name}", number)

    scaled = _with_number(c, f"{result}/scaled", "MUL", source, per_channel("factor", factor))
    bias = per_channel("bias", shift - mean * factor)
    name, activation = with_activation(c, node)
    c.give(name, _with_number(c, name, "ADD", scaled, bias, activation=activation))


def gelu(c: Converter, node: Any) -> None:
    """By the error function, or by tanh."""
    source = c.real(node.input[0])
    emit(
        c,
        node.output[0],
        "GELU",
        [source.tensor],
        source.order,
        options="GeluOptions",
        approximate=attributes(node).get("approximate", b"none") == b"tanh",
    )
