"""Core ML for tests: coremltools runs models on a Mac alone, so this runs the program of a package.

It reads the saved file and its weights, and computes each operator by torch in the types that the
program says: what is float16 there is rounded to float16 here, whatever it was summed in. Images
that are given together are computed as a batch, though the program is for one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

TYPES = {"fp16": torch.float16, "fp32": torch.float32, "int8": torch.int8}
NUMBERS = ("float16", "float32", "int8")  # all others are sizes, axes and names


def program_of(package: Path) -> Any:
    """Returns coremltools' program of a package, as it was saved."""
    from coremltools.converters.mil.frontend.milproto.load import load
    from coremltools.proto.Model_pb2 import Model

    data = package / "Data" / "com.apple.CoreML"
    spec = Model.FromString((data / "model.mlmodel").read_bytes())
    return load(spec, spec.specificationVersion, str(data / "weights"))


class MLModel:
    """Stands for ``coremltools.models.MLModel``: takes images, gives all outputs by name."""

    def __init__(self, path: str) -> None:
        (self._main,) = program_of(Path(path)).functions.values()

    @torch.inference_mode()
    def predict(self, inputs: Sequence[dict[str, Image.Image]]) -> list[dict[str, Any]]:
        values: dict[str, Any] = {}
        for name, variable in self._main.inputs.items():
            images = np.stack([np.atleast_3d(np.array(each[name])) for each in inputs])
            values[name] = torch.from_numpy(images).permute(0, 3, 1, 2).float()
            assert values[name].shape[1:] == variable.shape[1:]
        for operation in self._main.operations:
            if operation.op_type == "const":
                continue
            given = {name: _given(each, values) for name, each in operation.inputs.items()}
            made = OPERATORS[operation.op_type](SimpleNamespace(**given))
            results = made if isinstance(made, tuple) else (made,)
            values |= zip([each.name for each in operation.outputs], results, strict=True)
        answers: list[dict[str, Any]] = [{} for _ in inputs]
        for name in [each.name for each in self._main.outputs]:
            for answer, value in zip(answers, values[name], strict=True):
                answer[name] = value.numpy()[None] if isinstance(value, Tensor) else value
        return answers


def _given(variable: Any, values: dict[str, Any]) -> Any:
    """Returns what an operator is given: tensors, and plain Python values for the rest."""
    if isinstance(variable, (list, tuple)):
        return [_given(each, values) for each in variable]
    if variable.name in values:
        return values[variable.name]
    value = variable.val
    if not isinstance(value, (np.ndarray, np.generic)):
        return value
    return torch.as_tensor(value) if value.dtype in NUMBERS else value.tolist()


def _in_float32(compute: Callable[..., Tensor]) -> Callable[[Any], Tensor]:
    """Returns an operator that computes in float32 and rounds to the type of its input."""

    def run(o: Any) -> Tensor:
        wide = {
            name: value.float() if isinstance(value, Tensor) else value
            for name, value in vars(o).items()
        }
        return compute(SimpleNamespace(**wide)).to(o.x.dtype)

    return run


def _padded(o: Any, value: float) -> Tensor:
    top, bottom, left, right = o.pad
    return functional.pad(o.x, (left, right, top, bottom), value=value)


def _conv(o: Any) -> Tensor:
    bias, padded = getattr(o, "bias", None), _padded(o, 0)
    return functional.conv2d(padded, o.weight, bias, o.strides, 0, o.dilations, o.groups)


def _average(o: Any) -> Tensor:
    windows = _windows(o, torch.nan if o.exclude_padding_from_average else 0)
    return windows.nanmean(-1)


def _windows(o: Any, filler: float) -> Tensor:
    (height, width), (down, across) = o.kernel_sizes, o.strides
    return _padded(o, filler).unfold(2, height, down).unfold(3, width, across).flatten(4)


def _steps(o: Any, levels: Tensor) -> Tensor:
    scale = o.scale
    if scale.ndim:
        scale = scale.reshape([-1 if axis == o.axis else 1 for axis in range(levels.ndim)])
    return (levels.to(scale.dtype) - o.zero_point) * scale


def _quantize(o: Any) -> Tensor:
    dtype = TYPES[o.output_dtype]
    levels = (o.input.float() / o.scale.float()).round() + o.zero_point
    return levels.clamp(torch.iinfo(dtype).min, torch.iinfo(dtype).max).to(dtype)


def _classify(o: Any) -> tuple[list[str], list[dict[str, float]]]:
    shares = [dict(zip(o.classes, each, strict=True)) for each in o.probabilities.tolist()]
    return [max(each, key=lambda label: each[label]) for each in shares], shares


OPERATORS: dict[str, Callable[[Any], Any]] = {
    "add": _in_float32(lambda o: o.x + o.y),
    "avg_pool": _in_float32(_average),
    "cast": lambda o: o.x.to(TYPES[o.dtype]),
    "classify": _classify,
    "concat": lambda o: torch.cat(o.values, o.axis),
    "constexpr_affine_dequantize": lambda o: _steps(o, o.quantized_data),
    "conv": _in_float32(_conv),
    "dequantize": lambda o: _steps(o, o.input),
    "batch_norm": _in_float32(
        lambda o: functional.batch_norm(o.x, o.mean, o.variance, o.gamma, o.beta, eps=o.epsilon)
    ),
    "gelu": _in_float32(lambda o: functional.gelu(o.x)),
    "linear": _in_float32(lambda o: functional.linear(o.x, o.weight, getattr(o, "bias", None))),
    "max_pool": lambda o: _windows(o, -torch.inf).amax(-1),
    "maximum": lambda o: torch.maximum(o.x, o.y),
    "minimum": lambda o: torch.minimum(o.x, o.y),
    "mul": _in_float32(lambda o: o.x * o.y),
    "quantize": _quantize,
    "real_div": _in_float32(lambda o: o.x / o.y),
    "reduce_mean": _in_float32(lambda o: o.x.mean(o.axes, o.keep_dims)),
    "relu": lambda o: o.x.relu(),
    "relu6": lambda o: o.x.clamp(0, 6),
    "reshape": lambda o: o.x.reshape(-1, *o.shape[1:]),
    "sigmoid": _in_float32(lambda o: o.x.sigmoid()),
    "sigmoid_hard": _in_float32(lambda o: (o.alpha * o.x + o.beta).clamp(0, 1)),
    "softmax": lambda o: o.x.softmax(o.axis),
    "sub": _in_float32(lambda o: o.x - o.y),
    "split": lambda o: o.x.split(o.split_sizes, o.axis),
    "tanh": _in_float32(lambda o: o.x.tanh()),
    "transpose": lambda o: o.x.permute(o.perm),
}
