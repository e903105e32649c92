"""ONNX operators, computed by torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

Operator = Callable[..., Any]  # from an attribute by name and the inputs to the result(s)


def _conv(
    values: dict[str, Any], images: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    images, padding = _padded(values, images, 0.0)
    return functional.conv2d(
        images,
        weight,
        bias,
        stride=values.get("strides", 1),
        padding=padding,
        dilation=values.get("dilations", 1),
        groups=values.get("group", 1),
    )


def _gemm(
    values: dict[str, Any], rows: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    if {values.get(name, 1) for name in ("alpha", "beta")} != {1} or values.get("transA"):
        raise NotImplementedError("Gemm with a factor")
    return functional.linear(rows, weight if values.get("transB") else weight.T, bias)


def _pool(kind: Operator, fill: float) -> Operator:
    def pool(values: dict[str, Any], images: Tensor) -> Any:
        images, padding = _padded(values, images, fill)
        more: dict[str, Any] = {"ceil_mode": bool(values.get("ceil_mode"))}
        if fill == 0.0:  # an average
            more["count_include_pad"] = bool(values.get("count_include_pad"))
        return kind(images, values["kernel_shape"], values.get("strides", 1), padding, **more)

    return pool


def _padded(values: dict[str, Any], images: Tensor, fill: float) -> tuple[Tensor, Sequence[int]]:
    """Returns the images, and how much is still to be padded above and to the left."""
    top, left, bottom, right = values.get("pads", (0, 0, 0, 0))
    if (top, left) == (bottom, right):
        return images, (top, left)
    return functional.pad(images, (left, right, top, bottom), value=fill), (0, 0)


def _reshape(values: dict[str, Any], tensor: Tensor, shape: Tensor) -> Tensor:
    sides = shape.tolist()
    if not values.get("allowzero"):
        sides = [side or tensor.shape[index] for index, side in enumerate(sides)]
    return tensor.reshape(sides)


def _slice(
    values: dict[str, Any],
    tensor: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    places = range(len(starts)) if axes is None else axes.tolist()
    strides = [1] * len(starts) if steps is None else steps.tolist()
    index = [slice(None)] * tensor.ndim
    for axis, *ends_of in zip(places, starts.tolist(), ends.tolist(), strides, strict=True):
        index[axis] = slice(*ends_of)
    return tensor[tuple(index)]


def _split(values: dict[str, Any], tensor: Tensor, sizes: Tensor | None = None) -> Any:
    axis = values.get("axis", 0)
    if sizes is not None:
        return tensor.split(sizes.tolist(), axis)
    return tensor.split(-(-tensor.shape[axis] // values["num_outputs"]), axis)


def _clip(
    values: dict[str, Any], tensor: Tensor, low: Tensor | None = None, high: Tensor | None = None
) -> Tensor:
    return tensor.clamp(low, high)


def _mean(values: dict[str, Any], tensor: Tensor, axes: Tensor | None = None) -> Tensor:
    places = values.get("axes") if axes is None else axes.tolist()
    return tensor.mean(places, keepdim=bool(values.get("keepdims", 1)))


def _cast(values: dict[str, Any], tensor: Tensor) -> Tensor:
    from onnx.helper import tensor_dtype_to_np_dtype

    kind = tensor_dtype_to_np_dtype(values["to"])
    cast: Tensor = tensor.to(torch.from_numpy(np.zeros(0, kind)).dtype)
    return cast


def _layer_norm(
    values: dict[str, Any], tensor: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    shape = list(tensor.shape[values.get("axis", -1) :])
    result: Tensor = functional.layer_norm(tensor, shape, weight, bias, values.get("epsilon", 1e-5))
    return result


def _hard_sigmoid(values: dict[str, Any], tensor: Tensor) -> Tensor:
    return (tensor * float(values.get("alpha", 0.2)) + float(values.get("beta", 0.5))).clamp(0, 1)


OPERATORS: dict[str, Operator] = {
    "Add": lambda values, a, b: a + b,
    "AveragePool": _pool(functional.avg_pool2d, 0.0),
    "Cast": _cast,
    "Clip": _clip,
    "Concat": lambda values, *parts: torch.cat(parts, values["axis"]),
    "Conv": _conv,
    "Div": lambda values, a, b: a / b,
    "Erf": lambda values, tensor: tensor.erf(),
    "Flatten": lambda values, tensor: tensor.flatten(values.get("axis", 1)),
    "Gelu": lambda values, tensor: functional.gelu(
        tensor, approximate=values.get("approximate", b"none").decode()
    ),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda values, images: images.mean((2, 3), keepdim=True),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": lambda values, tensor: functional.hardswish(tensor),
    "Identity": lambda values, tensor: tensor,
    "LayerNormalization": _layer_norm,
    "MatMul": lambda values, a, b: a @ b,
    "MaxPool": _pool(functional.max_pool2d, -torch.inf),
    "Mul": lambda values, a, b: a * b,
    "Pow": lambda values, a, b: a**b,
    "ReduceMean": _mean,
    "Relu": lambda values, tensor: tensor.relu(),
    "Reshape": _reshape,
    "Sigmoid": lambda values, tensor: tensor.sigmoid(),
    "Slice": _slice,
    "Softmax": lambda values, tensor: tensor.softmax(values.get("axis", -1)),
    "Split": _split,
    "Sqrt": lambda values, tensor: tensor.sqrt(),
    "Squeeze": lambda values, tensor, axes: tensor.squeeze(axes.tolist()),
    "Sub": lambda values, a, b: a - b,
    "Tanh": lambda values, tensor: tensor.tanh(),
    "Transpose": lambda values, tensor: tensor.permute(values["perm"]),
    "Unsqueeze": lambda values, tensor, axes: tensor.unsqueeze(axes.item()),
}
