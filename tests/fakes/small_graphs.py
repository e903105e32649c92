"""ONNX graphs of small networks that hold every operator the registry's networks are made of."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array
from torch import nn

from core.preprocess import Pixels
from export.to_onnx import to_onnx
from models.classifier import Classifier

SIDE = 22  # neither its halves nor theirs are even


class Shuffle(nn.Module):
    """ShuffleNet's unit: halves, a shuffle of channels, a sum of unequal parts."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 12, 3, 2, 1)
        self.pool = nn.MaxPool2d(3, 2, 1)  # of what is never negative
        self.grouped = nn.Conv2d(12, 12, 1, groups=3)
        self.last = nn.Linear(12, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = self.pool(torch.relu(self.first(images)))
        left, right = values.chunk(2, dim=1)
        values = torch.cat([right, torch.tanh(left)], dim=1)
        batch, channels, height, width = values.shape
        values = values.view(batch, 3, channels // 3, height, width).transpose(1, 2).flatten(1, 2)
        small, large = self.grouped(values).split([4, 8], dim=1)
        values = torch.cat([torch.sigmoid(small), large - 0.5], dim=1)
        return self.last(values.mean([2, 3]))


def _settled(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    for name in ("weight", "bias", "running_mean", "running_var"):
        nn.init.uniform_(getattr(norm, name), 0.5, 2.0)
    return norm


def _convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.ReLU6(),
        nn.Conv2d(8, 16, 3, 1, 1, groups=8),  # depthwise, two for each channel
        nn.Hardswish(),
        nn.Conv2d(16, 8, 5, 2, 2, bias=False),
        nn.Hardtanh(-0.3, 0.4),
        nn.Conv2d(8, 8, (3, 1), 1, (2, 0), dilation=(2, 1)),
        nn.Hardsigmoid(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5, bias=False),
    )


def _pools() -> nn.Module:
    return nn.Sequential(
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(3, 6, 3, 1, 1),
        nn.MaxPool2d(2, 2, ceil_mode=True),
        _settled(nn.BatchNorm2d(6)),  # after no convolution that it could be folded into
        nn.GELU(),
        nn.AvgPool2d(3, 1, 1),
        nn.AvgPool2d(3, 1, 1, count_include_pad=False),
        nn.Hardtanh(0, 1),
        nn.Flatten(),  # as VGG: of many pixels
        nn.Linear(6 * 6 * 6, 5),
        nn.ReLU(),
    )


_NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "shuffle": Shuffle,
    "convolutions": _convolutions,
    "pools": _pools,
}
NAMES = tuple(_NETWORKS)


@functools.cache
def small_graph(name: str) -> Any:
    """Returns the float32 ``ModelProto`` of one of :data:`NAMES`, not to be changed."""
    torch.manual_seed(0)
    return to_onnx(Classifier(_NETWORKS[name]().eval()), size=SIDE)


def _made(nodes: Sequence[Any], constants: dict[str, np.ndarray], shape: Sequence[Any]) -> Any:
    """Returns a graph of uint8 pixels ("batch", 4, 4, 3) whose node ``logits`` comes last."""
    graph = helper.make_graph(
        [helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT), *nodes],
        "made",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["batch", 4, 4, 3])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        [from_array(values, name) for name, values in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def strange_graph(name: str) -> Any:
    """Returns a graph with what no format for phones takes: operators, a shape, a product."""
    nodes, constants, shape = {
        "gelu": (
            [
                helper.make_node("Shape", ["floats"], ["sizes"]),
                helper.make_node("Erf", ["floats"], ["once"]),
                helper.make_node("Erf", ["once"], ["logits"], name="gelu"),
            ],
            {},
            ["batch", 4, 4, 3],
        ),
        "windows": (
            [helper.make_node("Reshape", ["floats", "sizes"], ["logits"], name="windows")],
            {"sizes": np.array([-1, 4, 3])},
            ["rows", 4, 3],
        ),
        "attention": (
            [
                helper.make_node("Transpose", ["floats"], ["turned"], perm=[0, 1, 3, 2]),
                helper.make_node("MatMul", ["turned", "floats"], ["logits"], name="attention"),
            ],
            {},
            ["batch", 4, 3, 3],
        ),
    }[name]
    return _made(nodes, constants, shape)


def pixels_of(model: Any, count: int = 3) -> Pixels:
    """Returns uint8 (count, H, W, 3) for a graph."""
    sizes = [each.dim_value for each in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    return np.random.default_rng(0).integers(0, 256, (count, *sizes), dtype=np.uint8)


def run_onnx(model: Any, pixels: Pixels) -> np.ndarray:
    """Returns the logits of a graph in ONNX Runtime."""
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"pixels": pixels})[0]


def run_levels(model: Any, levels: Any, optimized: Path | None = None) -> np.ndarray:
    """Returns the levels that ONNX Runtime makes of ``levels``; writes its own graph, if asked."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if optimized:
        options.optimized_model_filepath = str(optimized)
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    results: np.ndarray = session.run(None, {"levels": levels})[0].astype(int)
    return results
