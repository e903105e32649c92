"""Each ONNX operator in TFLite's terms: float32, or int8 where the graph rounds all its tensors.

A handler takes a :class:`Converter` and a node, asks for the node's inputs, and gives its result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from export.litert.converter import Converter, Handler, Value
from export.litert.layout import CHANNELS_LAST, Order, in_order, reshaped, transposed
from export.litert.writer import BATCH, Array, Steps
from export.node_attributes import attributes

_FUSED = {(0.0, np.inf): "RELU", (0.0, 6.0): "RELU6", (-1.0, 1.0): "RELU_N1_TO_1"}
_FEW_CHANNELS = 4  # of pixels: an operator that reads so few at a time takes long


def _emit(
    c: Converter,
    name: str,
    kind: str,
    inputs: Sequence[int],
    order: Order,
    steps: Steps | None = None,
    **options: Any,
) -> None:
    """Adds an operator whose result is the graph's tensor ``name``: int8 if ``steps`` are given."""
    made = c.new(name, c.shape(name), order, steps)
    c.writer.operator(kind, inputs, [made.tensor], **options)
    _give(c, name, made)


def _give(c: Converter, name: str, made: Value) -> None:
    """Makes ``made`` the tensor ``name``, or what rounds it if it is int8."""
    if made.steps is None:
        c.give(name, made)
    else:
        c.give_rounded(name, made)


def _int8(c: Converter, result: str, *names: str) -> Steps | None:
    """Returns the steps of a result if it and all of ``names`` are int8, else None."""
    steps = c.steps_of(result)
    return steps if all(c.value(name).steps is not None for name in names) else None


def _with_activation(c: Converter, node: Any) -> tuple[str, str]:
    """Returns the result of a node and of the activation after it, and that one's fused name."""
    name = node.output[0]
    after = c.only_reader(name)
    if after is None or after.op_type not in ("Relu", "Clip"):
        return name, "NONE"
    kind = _FUSED.get(_bounds(c, after))
    if kind is None:
        return name, "NONE"
    c.absorb(after)
    return after.output[0], kind


def _bounds(c: Converter, node: Any) -> tuple[float, float]:
    """Returns between what a Relu or Clip keeps its input."""
    low, high = (0.0, np.inf) if node.op_type == "Relu" else (-np.inf, np.inf)
    given = [float(c.constant(node, i)) if name else None for i, name in enumerate(node.input) if i]
    low = given[0] if given and given[0] is not None else low
    high = given[1] if len(given) > 1 and given[1] is not None else high
    return low, high


def _conv(c: Converter, node: Any) -> None:
    values = attributes(node)
    if values.get("auto_pad", b"NOTSET") != b"NOTSET" or len(c.shape(node.input[0])) != 4:
        raise c.refusal(node, "only 2D convolutions with pads of their own are taken")
    weight = c.weight(node.input[1])
    if weight is None:
        raise c.refusal(node, "its weights are computed, and must be constants")
    result, activation = _with_activation(c, node)
    steps = _int8(c, result, node.input[0]) if weight.steps else None
    source = c.ordered(c.value(node.input[0]) if steps else c.real(node.input[0]), CHANNELS_LAST)
    channels, groups = source.shape[1], values.get("group", 1)
    outputs, kernel = weight.values.shape[0], weight.values.shape[2:]
    strides, dilations = values.get("strides", [1, 1]), values.get("dilations", [1, 1])
    pads = values.get("pads", [0] * 4)
    source, padding = _padded(c, source, pads, kernel, strides, dilations)
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
    _emit(c, result, kind, inputs, CHANNELS_LAST, steps, options=table, **options)


def _int32_bias(c: Converter, node: Any, real: Array, scale: Array) -> int:
    ends = np.iinfo(np.int32)
    levels = np.clip(np.round(real / scale.astype(np.float64)), ends.min, ends.max)
    return c.writer.constant(
        f"{node.output[0]}/bias", levels.astype(np.int32), Steps(scale.astype(np.float32))
    )


def _padded(
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


def _gemm(c: Converter, node: Any) -> None:
    values = attributes(node)
    if values.get("alpha", 1.0) != 1 or values.get("beta", 1.0) != 1 or values.get("transA"):
        raise c.refusal(node, "it scales or transposes its input")
    _fully_connected(c, node, transposed_weight=bool(values.get("transB")))


def _matmul(c: Converter, node: Any) -> None:
    _fully_connected(c, node, transposed_weight=False)


def _fully_connected(c: Converter, node: Any, *, transposed_weight: bool) -> None:
    weight = c.weight(node.input[1])
    if weight is None or weight.values.ndim != 2:
        raise c.refusal(node, "its second input is computed, and must be a constant matrix")
    result, activation = _with_activation(c, node)
    steps = _int8(c, result, node.input[0]) if weight.steps else None
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
    _emit(
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


def _binary(kind: str, table: str) -> Handler:
    def handle(c: Converter, node: Any) -> None:
        result, activation = _with_activation(c, node)
        tensors = [name for name in node.input if c.weight(name) is None]
        constants = [c.weight(name) for name in node.input]
        steps = None
        if kind != "DIV" and all(each is None or each.steps for each in constants):
            steps = _int8(c, result, *tensors)
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
                levels = _laid(weight.values.astype(np.int8), first)
                inputs.append(c.writer.constant(name, levels, weight.steps))
            else:
                inputs.append(c.writer.constant(name, _wide(_laid(weight.real, first), first)))
        _emit(
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


def _laid(values: Array, beside: Value) -> Array:
    """Returns a constant as it is stored beside a tensor that it is broadcast to."""
    rank = len(beside.shape)
    return values.reshape([1] * (rank - values.ndim) + list(values.shape)).transpose(beside.order)


def _wide(values: Array, beside: Value) -> Array:
    """Repeats the constants of a pixel's three channels to a row's width.

    XNNPACK takes what is contiguous at a time: 672 numbers instead of 3.
    """
    if values.ndim == 4 and values.shape[:3] == (1, 1, 1) and 1 < values.shape[3] < _FEW_CHANNELS:
        return np.tile(values, (1, 1, beside.shape[beside.order[2]], 1))
    return values


def _unary(kind: str, table: str | None = None) -> Handler:
    def handle(c: Converter, node: Any) -> None:
        source = c.real(node.input[0])
        _emit(c, node.output[0], kind, [source.tensor], source.order, options=table)

    return handle


def _clip(c: Converter, node: Any) -> None:
    """Relu and Clip that no operator before them has taken in."""
    source = c.real(node.input[0])
    bounds = _bounds(c, node)
    kinds = {(0.0, np.inf): "RELU", (0.0, 6.0): "RELU6", (0.0, 1.0): "RELU_0_TO_1"}
    if bounds in kinds:
        _emit(c, node.output[0], kinds[bounds], [source.tensor], source.order)
        return
    tensor = source.tensor
    for kind, bound in zip(("MAXIMUM", "MINIMUM"), bounds, strict=True):
        limit = c.writer.constant(kind.lower(), np.array(bound, np.float32))
        made = c.new(f"{node.output[0]}/{kind}", source.shape, source.order)
        c.writer.operator(kind, [tensor, limit], [made.tensor], options="MaximumMinimumOptions")
        tensor = made.tensor
    c.give(node.output[0], Value(tensor, source.shape, source.order))


def _sigmoid(c: Converter, node: Any) -> None:
    result = node.output[0]
    if _int8(c, result, node.input[0]) is None:
        _unary("LOGISTIC")(c, node)
        return
    # TFLite has one scale for it, whatever was measured.
    steps = Steps(np.array([1 / 256], np.float32), -128)
    source = c.value(node.input[0])
    _emit(c, result, "LOGISTIC", [source.tensor], source.order, steps)


def _hard_sigmoid(c: Converter, node: Any) -> None:
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


def _batch_norm(c: Converter, node: Any) -> None:
    """One that follows no convolution, and so is in none: a product and a sum for each channel."""
    source, result = c.real(node.input[0]), node.output[0]
    scale, shift, mean, variance = (c.constant(node, index) for index in range(1, 5))
    factor = scale / np.sqrt(variance + attributes(node).get("epsilon", 1e-5))
    shape = [1, -1] + [1] * (len(source.shape) - 2)

    def number(name: str, values: Array) -> int:
        laid = _laid(values.reshape(shape).astype(np.float32), source)
        return c.stored_weight(f"{result}/{name}", laid)

    scaled = _with_number(c, f"{result}/scaled", "MUL", source, number("factor", factor))
    bias = number("bias", shift - mean * factor)
    name, activation = _with_activation(c, node)
    c.give(name, _with_number(c, name, "ADD", scaled, bias, activation=activation))


def _gelu(c: Converter, node: Any) -> None:
    source = c.real(node.input[0])
    _emit(
        c,
        node.output[0],
        "GELU",
        [source.tensor],
        source.order,
        options="GeluOptions",
        approximate=attributes(node).get("approximate", b"none") == b"tanh",
    )


def _mean(c: Converter, node: Any) -> None:
    """GlobalAveragePool, and ReduceMean over constant axes."""
    values, result = attributes(node), node.output[0]
    steps = _int8(c, result, node.input[0])
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
    _emit(
        c,
        result,
        "MEAN",
        [source.tensor, c.writer.constant("axes", np.array(places, np.int32))],
        tuple(names.index(axis) for axis in left),
        steps,
        options="ReducerOptions",
        keepDims=keep,
    )


def _pool(kind: str) -> Handler:
    def handle(c: Converter, node: Any) -> None:
        values, result = attributes(node), node.output[0]
        kernel, strides = values["kernel_shape"], values.get("strides", [1, 1])
        dilations = values.get("dilations") or [1, 1]
        if len(kernel) != 2 or list(dilations) != [1, 1]:
            raise c.refusal(node, "only 2D windows without gaps are taken")
        steps = _int8(c, result, node.input[0])
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
        source, padding = _padded(
            c, source, pads, kernel, strides, [1, 1], filler=filler, same=same
        )
        if average and padding == "VALID" and any(pads) and not counted:
            raise c.refusal(node, "TFLite would count what stands around the image")
        _emit(
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
    if before is not None and before.op_type in ("Relu", "Clip") and _bounds(c, before)[0] >= 0:
        return None
    return float(np.finfo(np.float32).min)


def _concat(c: Converter, node: Any) -> None:
    result = node.output[0]
    steps = _int8(c, result, *node.input)
    parts = [c.value(name) if steps else c.real(name) for name in node.input]
    order = parts[0].order
    parts = [c.ordered(part, order) for part in parts]
    if steps:  # TFLite joins only what has the same steps
        parts = [c.rounded(f"{result}/{i}", part, steps) for i, part in enumerate(parts)]
    axis = attributes(node)["axis"] % len(order)
    _emit(
        c,
        result,
        "CONCATENATION",
        [part.tensor for part in parts],
        order,
        steps,
        options="ConcatenationOptions",
        axis=order.index(axis),
        fusedActivationFunction=c.writer.enum("ActivationFunctionType", "NONE"),
    )


def _split(c: Converter, node: Any) -> None:
    source = c.value(node.input[0])
    axis = attributes(node).get("axis", 0) % len(source.order)
    place = np.array(source.order.index(axis), np.int32)
    made = [c.new(name, c.shape(name), source.order, source.steps) for name in node.output]
    sizes = [value.shape[axis] for value in made]
    tensors = [value.tensor for value in made]
    where = c.writer.constant("axis", place)
    if len(set(sizes)) == 1:
        c.writer.operator(
            "SPLIT",
            [where, source.tensor],
            tensors,
            options="SplitOptions",
            numSplits=len(made),
        )
    else:
        lengths = c.writer.constant("sizes", np.array(sizes, np.int32))
        c.writer.operator(
            "SPLIT_V",
            [source.tensor, lengths, where],
            tensors,
            options="SplitVOptions",
            numSplits=len(made),
        )
    for name, value in zip(node.output, made, strict=True):
        c.give(name, value)


def _reshape(c: Converter, node: Any) -> None:
    """Reshape, Flatten, Squeeze and Unsqueeze: the shapes say it all."""
    source, result = c.value(node.input[0]), node.output[0]
    shape = c.shape(result)
    found = reshaped(source.shape, shape, source.order)
    if found is None:
        raise c.refusal(node, "it mixes the images of a batch with another axis")
    wanted, order = found
    source = c.ordered(source, wanted)
    made = c.new(result, shape, order, source.steps)
    sizes = np.array([shape[axis] for axis in order], np.int32)
    assert BATCH == -1, "in a RESHAPE, too, -1 is what is left"
    c.writer.operator(
        "RESHAPE",
        [source.tensor, c.writer.constant("shape", sizes)],
        [made.tensor],
        options="ReshapeOptions",
        newShape=sizes.tolist(),
    )
    c.give(result, made)


def _transpose(c: Converter, node: Any) -> None:
    source, result = c.value(node.input[0]), node.output[0]
    permutation = tuple(attributes(node)["perm"])
    order = transposed(source.order, permutation)
    c.give(result, Value(source.tensor, c.shape(result), order, source.steps))


def _cast(c: Converter, node: Any) -> None:
    import onnx

    if attributes(node)["to"] != onnx.TensorProto.FLOAT:
        raise c.refusal(node, "only casts to float32 are taken")
    c.give(node.output[0], c.real(node.input[0]))


def _identity(c: Converter, node: Any) -> None:
    c.give(node.output[0], c.value(node.input[0]))


HANDLERS: dict[str, Handler] = {
    "Add": _binary("ADD", "AddOptions"),
    "AveragePool": _pool("AVERAGE_POOL_2D"),
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Constant": lambda c, node: None,  # the converter has read it
    "Concat": _concat,
    "Conv": _conv,
    "DequantizeLinear": Converter.dequantize,
    "Div": _binary("DIV", "DivOptions"),
    "Dropout": _identity,
    "Flatten": _reshape,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _mean,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary("HARD_SWISH", "HardSwishOptions"),
    "Identity": _identity,
    "MatMul": _matmul,
    "MaxPool": _pool("MAX_POOL_2D"),
    "Mul": _binary("MUL", "MulOptions"),
    "QuantizeLinear": Converter.quantize,
    "ReduceMean": _mean,
    "Relu": _clip,
    "Reshape": _reshape,
    "Sigmoid": _sigmoid,
    "Split": _split,
    "Squeeze": _reshape,
    "Sub": _binary("SUB", "SubOptions"),
    "Tanh": _unary("TANH"),
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
