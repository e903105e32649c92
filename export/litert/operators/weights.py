"""Convolutions and matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np

from export.litert.converter import Converter
from export.litert.layout import CHANNELS_LAST, in_order
from export.litert.operators.results import emit, int8, with_activation
from export.litert.operators.windows import padded
from export.litert.writer import Array, Steps
from export.node_attributes import attributes, pads_itself


def conv(c: Converter, node: Any) -> None:
    """Conv, and the activation after it, depthwise where each channel has a group of its own."""
    values = attributes(node)
    if pads_itself(values) or len(c.shape(node.input[0])) != 4:
        raise c.refusal(node, "only 2D convolutions with pads of their own are taken")
    weight = c.weight(node.input[1])
    if weight is None:
        raise c.refusal(node, "its weights are computed, and must be constants")
    result, activation = with_activation(c, node)
    steps = int8(c, result, node.input[0]) if weight.steps else None
    source = c.ordered(c.value(node.input[0]) if steps else c.real(node.input[0]), CHANNELS_LAST)
    channels, groups = source.shape[1], values.get("group", 1)
    outputs, kernel = weight.values.shape[0], weight.values.shape[2:]
    strides, dilations = values.get("strides", [1, 1]), values.get("dilations", [1, 1])
    pads = values.get("pads", [0] * 4)
    source, padding = padded(c, source, pads, kernel, strides, dilations)
    depthwise = groups == channels and groups > 1
    # (outputs, inputs, H, W) to (outputs, H, W, inputs), or to (1, H, W, outputs).
    axes, axis = ((1, 2, 3, 0), 3) if depthwise else ((0, 2, 3, 1), 0)
    bias = c.weight(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if steps:
        assert weight.steps is not None
        assert source.steps is not None
        scale = np.broadcast_to(weight.steps.scale, outputs)
        weights = c.writer.constant(
            node.input[1], weight.values.transpose(axes), Steps(scale, 0, axis)
        )
        products = (source.steps.scale * scale).astype(np.float32)
        biases = _int32_bias(c, node, bias.real if bias else np.zeros(outputs), products)
    else:
        weights = c.stored_weight(node.input[1], weight.real.transpose(axes))
        real = bias.real if bias else np.zeros(outputs)
        biases = c.stored_weight(f"{node.output[0]}/bias", real.astype(np.float32))
    options: dict[str, Any] = {
        "padding": c.writer.enum("Padding", padding),
        "strideH": strides[0],
        "strideW": strides[1],
        "dilationHFactor": dilations[0],
        "dilationWFactor": dilations[1],
        "fusedActivationFunction": c.writer.enum("ActivationFunctionType", activation),
    }
    kind, table = "CONV_2D", "Conv2DOptions"
    if depthwise:
        kind, table = "DEPTHWISE_CONV_2D", "DepthwiseConv2DOptions"
        options["depthMultiplier"] = outputs // channels
    inputs = [source.tensor, weights, biases]
    emit(c, result, kind, inputs, CHANNELS_LAST, steps, options=table, **options)


def _int32_bias(c: Converter, node: Any, real: Array, scale: Array) -> int:
    ends = np.iinfo(np.int32)
    levels = np.clip(np.round(real / scale.astype(np.float64)), ends.min, ends.max)
    return c.writer.constant(
        f"{node.output[0]}/bias", levels.astype(np.int32), Steps(scale.astype(np.float32))
    )


def gemm(c: Converter, node: Any) -> None:
    """Gemm that only adds a bias."""
    values = attributes(node)
    if values.get("alpha", 1.0) != 1 or values.get("beta", 1.0) != 1 or values.get("transA"):
        raise c.refusal(node, "it scales or transposes its input")
    _fully_connected(c, node, transposed_weight=bool(values.get("transB")))


def matmul(c: Converter, node: Any) -> None:
    """MatMul by a constant matrix."""
    _fully_connected(c, node, transposed_weight=False)


def _fully_connected(c: Converter, node: Any, *, transposed_weight: bool) -> None:
    weight = c.weight(node.input[1])
    if weight is None or weight.values.ndim != 2:
        raise c.refusal(node, "its second input is computed, and must be a constant matrix")
    result, activation = with_activation(c, node)
    steps = int8(c, result, node.input[0]) if weight.steps else None
    source = c.value(node.input[0]) if steps else c.real(node.input[0])
    source = c.ordered(source, in_order(source.order))
    rows = weight.values if transposed_weight else weight.values.T
    bias = c.weight(node.input[2]) if len(node.input) > 2 else None
    real = bias.real if bias else np.zeros(len(rows))
    if weight.steps:
        scale = np.broadcast_to(weight.steps.scale, len(rows))
        weights = c.writer.constant(node.input[1], rows, Steps(scale))
    else:
        weights = c.stored_weight(node.input[1], rows)
    if steps:
        assert source.steps is not None
        biases = _int32_bias(c, node, real, source.steps.scale * scale)
    else:
        biases = c.stored_weight(f"{node.output[0]}/bias", real.astype(np.float32))
    version = 5 if len(source.shape) > 2 else None
    emit(
        c,
        result,
        "FULLY_CONNECTED",
        [source.tensor, weights, biases],
        in_order(c.shape(result)),
        steps,
        options="FullyConnectedOptions",
        # Of float32 values and int8 weights with a scale for each row: it rounds the values itself.
        version=12 if weight.steps and not steps else version,
        keepNumDims=len(source.shape) > 2,
        fusedActivationFunction=c.writer.enum("ActivationFunctionType", activation),
    )
