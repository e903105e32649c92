"""Padding, pooling and means."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from export.litert.converter import Converter, Handler, Value
from export.litert.layout import CHANNELS_LAST
from export.litert.operators.results import emit, int8, limits
from export.node_attributes import attributes


def padded(
    c: Converter,
    source: Value,
    pads: Sequence[int],
    kernel: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    *,
    filler: float | None = None,
    same: bool = True,
) -> tuple[Value, str]:
    """Returns what a window slides over, and TFLite's word for its padding.

    Args:
        c: the converter.
        source: stored with its channels last.
        pads: above, left, below, right.
        kernel: sides of the window.
        strides: of the window.
        dilations: of the window.
        filler: what stands around the image: None for zeros.
        same: whether TFLite's own padding is taken where it is as wide.
    """
    if not any(pads):
        return source, "VALID"
    sides = source.shape[2:]
    own = []
    for side, window, stride, dilation in zip(sides, kernel, strides, dilations, strict=True):
        total = max((-(-side // stride) - 1) * stride + (window - 1) * dilation + 1 - side, 0)
        own.append((total // 2, total - total // 2))
    if same and list(pads) == [own[0][0], own[1][0], own[0][1], own[1][1]]:
        return source, "SAME"
    top, left, bottom, right = pads
    count, channels = source.shape[:2]
    shape = (count, channels, sides[0] + top + bottom, sides[1] + left + right)
    widths = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
    made = c.new(f"padded/{source.tensor}", shape, source.order, source.steps)
    inputs = [source.tensor, c.writer.constant("pads", widths)]
    if filler is None:
        c.writer.operator("PAD", inputs, [made.tensor], options="PadOptions")
    else:
        if source.steps:
            value = c.writer.constant("filler", np.array([filler], np.int8), source.steps)
        else:
            value = c.writer.constant("filler", np.array([filler], np.float32))
        c.writer.operator("PADV2", [*inputs, value], [made.tensor], options="PadV2Options")
    return made, "VALID"


def mean(c: Converter, node: Any) -> None:
    """GlobalAveragePool, and ReduceMean over constant axes."""
    values, result = attributes(node), node.output[0]
    steps = int8(c, result, node.input[0])
    source = c.value(node.input[0]) if steps else c.real(node.input[0])
    rank = len(source.shape)
    if node.op_type == "GlobalAveragePool":
        axes, keep = list(range(2, rank)), True
    elif len(node.input) > 1:
        axes = [int(axis) % rank for axis in c.constant(node, 1)]
        keep = bool(values.get("keepdims", 1))
    else:
        raise c.refusal(node, "its axes are not given")
    places = sorted(source.order.index(axis) for axis in axes)
    left = [axis for axis in source.order if keep or axis not in axes]
    names = sorted(left)
    emit(
        c,
        result,
        "MEAN",
        [source.tensor, c.writer.constant("axes", np.array(places, np.int32))],
        tuple(names.index(axis) for axis in left),
        steps,
        options="ReducerOptions",
        keepDims=keep,
    )


def pool(kind: str) -> Handler:
    """Returns the handler of a mean or maximum over windows."""

    def handle(c: Converter, node: Any) -> None:
        values, result = attributes(node), node.output[0]
        kernel, strides = values["kernel_shape"], values.get("strides", [1, 1])
        dilations = values.get("dilations") or [1, 1]
        if len(kernel) != 2 or list(dilations) != [1, 1]:
            raise c.refusal(node, "only 2D windows without gaps are taken")
        steps = int8(c, result, node.input[0])
        source = c.value(node.input[0]) if steps else c.real(node.input[0])
        source = c.ordered(source, CHANNELS_LAST)
        pads = list(values.get("pads", [0] * 4))
        average, counted = kind == "AVERAGE_POOL_2D", bool(values.get("count_include_pad"))
        for axis in range(2):  # ceil_mode: the last window may hang over the end
            reach = (c.shape(result)[2 + axis] - 1) * strides[axis] + kernel[axis]
            over = reach - source.shape[2 + axis] - pads[axis] - pads[2 + axis]
            pads[2 + axis] += max(over, 0)
            counted = counted and over <= 0
        filler, same = (None, not counted) if average else (_least(c, node, source), True)
        source, padding = padded(c, source, pads, kernel, strides, [1, 1], filler=filler, same=same)
        if average and padding == "VALID" and any(pads) and not counted:
            raise c.refusal(node, "TFLite would count what stands around the image")
        emit(
            c,
            result,
            kind,
            [source.tensor],
            CHANNELS_LAST,
            source.steps,  # TFLite pools without rescaling
            options="Pool2DOptions",
            padding=c.writer.enum("Padding", padding),
            strideH=strides[0],
            strideW=strides[1],
            filterHeight=kernel[0],
            filterWidth=kernel[1],
            fusedActivationFunction=c.writer.enum("ActivationFunctionType", "NONE"),
        )

    return handle


def _least(c: Converter, node: Any, source: Value) -> float | None:
    """Returns a number that no value is below; None for zeros, which XNNPACK pads with."""
    if source.steps:
        return None if source.steps.zero == -128 else -128.0
    before = c.maker(node.input[0])
    if before is not None and before.op_type in ("Relu", "Clip") and limits(c, before)[0] >= 0:
        return None
    return float(np.finfo(np.float32).min)
