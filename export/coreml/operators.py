"""Each ONNX operator in MIL's terms.

A handler takes a :class:`Translator` and a node, and returns the variable that is the node's
result, or a list of them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from export.coreml.program import Handler, Translator, Weight
from export.node_attributes import attributes, pads_itself


def _number(value: float, beside: Any) -> Any:
    """Returns a number in the type of a variable."""
    from coremltools.converters.mil.mil import types

    return types.nptype_from_builtin(beside.dtype)(value)


def _conv(t: Translator, node: Any) -> Any:
    values = attributes(node)
    if pads_itself(values) or len(t.shape(node.input[0])) != 4:
        raise t.refusal(node, "only 2D convolutions with pads of their own are taken")
    return t.mb.conv(
        x=t.value(node, 0),
        weight=t.stored(node, t.constant(node, 1)),
        **t.optional(node, bias=2),
        **_window(values, values.get("pads", [0] * 4)),
        dilations=list(values.get("dilations", [1, 1])),
        groups=values.get("group", 1),
    )


def _window(values: dict[str, Any], pads: list[int]) -> dict[str, Any]:
    """Returns strides and pads in MIL's terms.

    Args:
        values: attributes of a node.
        pads: above, left, below, right.
    """
    top, left, bottom, right = pads
    return {
        "strides": list(values.get("strides", [1, 1])),
        "pad_type": "custom",
        "pad": [top, bottom, left, right],
    }


def _gemm(t: Translator, node: Any) -> Any:
    values = attributes(node)
    if values.get("alpha", 1.0) != 1 or values.get("beta", 1.0) != 1 or values.get("transA"):
        raise t.refusal(node, "it scales or transposes its input")
    return _linear(t, node, transposed=bool(values.get("transB")))


def _linear(t: Translator, node: Any, *, transposed: bool = False) -> Any:
    """A product with a constant matrix, which MIL wants as (outputs, inputs)."""
    matrix = t.constant(node, 1)
    weight = t.stored(node, matrix if transposed else matrix.T)
    return t.mb.linear(x=t.value(node, 0), weight=weight, **t.optional(node, bias=2))


def _binary(name: str) -> Handler:
    return lambda t, node: getattr(t.mb, name)(x=t.value(node, 0), y=t.value(node, 1))


def _unary(name: str) -> Handler:
    return lambda t, node: getattr(t.mb, name)(x=t.value(node, 0))


def _clip(t: Translator, node: Any) -> Any:
    source = t.value(node, 0)
    bounds = t.optional(node, low=1, high=2)
    low, high = (float(bounds.get(*each)) for each in (("low", -math.inf), ("high", math.inf)))
    if (low, high) == (0, 6):
        return t.mb.relu6(x=source)
    if math.isfinite(low):
        source = t.mb.maximum(x=source, y=_number(low, source))
    return t.mb.minimum(x=source, y=_number(high, source)) if math.isfinite(high) else source


def _hard_sigmoid(t: Translator, node: Any) -> Any:
    source, values = t.value(node, 0), attributes(node)
    alpha, beta = values.get("alpha", 0.2), values.get("beta", 0.5)
    return t.mb.sigmoid_hard(x=source, alpha=_number(alpha, source), beta=_number(beta, source))


def _hard_swish(t: Translator, node: Any) -> Any:
    source = t.value(node, 0)
    gate = t.mb.sigmoid_hard(x=source, alpha=_number(1 / 6, source), beta=_number(0.5, source))
    return t.mb.mul(x=source, y=gate)


def _gelu(t: Translator, node: Any) -> Any:
    tanh = attributes(node).get("approximate", b"none") == b"tanh"
    return t.mb.gelu(x=t.value(node, 0), mode="TANH_APPROXIMATION" if tanh else "EXACT")


def _batch_norm(t: Translator, node: Any) -> Any:
    source = t.value(node, 0)
    return t.mb.batch_norm(
        x=source,
        **t.optional(node, gamma=1, beta=2, mean=3, variance=4),
        epsilon=_number(attributes(node).get("epsilon", 1e-5), source),
    )


def _mean(t: Translator, node: Any) -> Any:
    """GlobalAveragePool, and ReduceMean over constant axes."""
    axes, keep = list(range(2, len(t.shape(node.input[0])))), True
    if node.op_type == "ReduceMean":
        if len(node.input) < 2:
            raise t.refusal(node, "its axes are not given")
        axes = t.array(node, 1).tolist()
        keep = bool(attributes(node).get("keepdims", 1))
    return t.mb.reduce_mean(x=t.value(node, 0), axes=axes, keep_dims=keep)


def _pool(t: Translator, node: Any) -> Any:
    values, average = attributes(node), node.op_type == "AveragePool"
    kernel, pads = list(values["kernel_shape"]), list(values.get("pads", [0] * 4))
    if len(kernel) != 2 or list(values.get("dilations") or [1, 1]) != [1, 1]:
        raise t.refusal(node, "only 2D windows without gaps are taken")
    strides, counted = values.get("strides", [1, 1]), bool(values.get("count_include_pad"))
    sizes, made = t.shape(node.input[0]), t.shape(node.output[0])
    for axis in range(2):  # ceil_mode: the last window may hang over the end
        reach = (made[2 + axis] - 1) * strides[axis] + kernel[axis]
        over = reach - sizes[2 + axis] - pads[axis] - pads[2 + axis]
        if over > 0 and average and counted:
            raise t.refusal(node, "Core ML would count what stands around the image")
        pads[2 + axis] += max(over, 0)
    window = {"kernel_sizes": kernel, **_window(values, pads)}
    if not average:
        return t.mb.max_pool(x=t.value(node, 0), **window)
    return t.mb.avg_pool(x=t.value(node, 0), exclude_padding_from_average=not counted, **window)


def _concat(t: Translator, node: Any) -> Any:
    parts = [t.value(node, index) for index in range(len(node.input))]
    return t.mb.concat(values=parts, axis=attributes(node)["axis"])


def _split(t: Translator, node: Any) -> Any:
    axis = attributes(node).get("axis", 0)
    sizes = [t.shape(name)[axis] for name in node.output]
    return t.mb.split(x=t.value(node, 0), split_sizes=sizes, axis=axis)


def _reshape(t: Translator, node: Any) -> Any:
    """Reshape, Flatten, Squeeze and Unsqueeze: the shapes say it all."""
    return t.mb.reshape(x=t.value(node, 0), shape=list(t.shape(node.output[0])))


def _transpose(t: Translator, node: Any) -> Any:
    return t.mb.transpose(x=t.value(node, 0), perm=list(attributes(node)["perm"]))


def _cast(t: Translator, node: Any) -> Any:
    from onnx import TensorProto

    types = {TensorProto.FLOAT: "fp32", TensorProto.FLOAT16: "fp16"}
    dtype = types.get(attributes(node)["to"])
    if dtype is None:
        raise t.refusal(node, "only casts to float32 and float16 are taken")
    return t.mb.cast(x=t.value(node, 0), dtype=t.float_type(dtype))


def _identity(t: Translator, node: Any) -> Any:
    return t.value(node, 0)


def _constant(t: Translator, node: Any) -> Any:
    from onnx.numpy_helper import to_array

    return to_array(node.attribute[0].t)


def _quantize(t: Translator, node: Any) -> Any:
    scale, zero = _steps(t, node)
    return t.mb.quantize(
        input=t.value(node, 0), scale=scale, zero_point=zero, output_dtype=zero.dtype.name
    )


def _dequantize(t: Translator, node: Any) -> Any:
    """Of an activation; or of weights, which stay integers in the file."""
    if not t.is_constant(node, 0):
        scale, zero = _steps(t, node)
        return t.mb.dequantize(input=t.value(node, 0), scale=scale, zero_point=zero)
    levels, scale = t.constant(node, 0), t.constant(node, 1)
    assert isinstance(levels, np.ndarray)
    assert isinstance(scale, np.ndarray)
    if levels.dtype != np.int8 or t.array(node, 2).any():
        raise t.refusal(node, "only int8 weights without a zero point are taken")
    axis = attributes(node).get("axis", 1) % levels.ndim if scale.ndim else 0
    return Weight(levels, scale, axis)


def _steps(t: Translator, node: Any) -> tuple[Any, Any]:
    """Returns scale and zero point of an activation's integers."""
    scale, zero = t.array(node, 1), t.array(node, 2)
    if scale.size > 1:
        raise t.refusal(node, "it has a scale for each channel of an activation")
    if not scale.all():
        raise t.refusal(node, "its scale is too small for float16")
    return scale.reshape(())[()], zero.reshape(())[()]


HANDLERS: dict[str, Handler] = {
    "Add": _binary("add"),
    "AveragePool": _pool,
    "BatchNormalization": _batch_norm,
    "Cast": _cast,
    "Clip": _clip,
    "Concat": _concat,
    "Constant": _constant,
    "Conv": _conv,
    "DequantizeLinear": _dequantize,
    "Div": _binary("real_div"),
    "Dropout": _identity,
    "Flatten": _reshape,
    "Gelu": _gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _mean,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "Identity": _identity,
    "MatMul": _linear,
    "MaxPool": _pool,
    "Mul": _binary("mul"),
    "QuantizeLinear": _quantize,
    "ReduceMean": _mean,
    "Relu": _unary("relu"),
    "Reshape": _reshape,
    "Sigmoid": _unary("sigmoid"),
    "Split": _split,
    "Squeeze": _reshape,
    "Sub": _binary("sub"),
    "Tanh": _unary("tanh"),
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
