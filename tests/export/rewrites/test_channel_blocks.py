"""Channels of zeros: the same answers, in blocks of channels."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.numpy_helper import to_array
from torch import nn

from artifact.golden import relative_error
from artifact.records import Logits
from export.rewrites.channel_blocks import fill_blocks
from export.to_onnx import to_onnx
from models.classifier import Classifier


class Unit(nn.Module):
    """A convolution of ``channels``, a depthwise one, and what reads it."""

    def __init__(self, channels: int, reader: str = "convolution") -> None:
        super().__init__()
        self.reader = reader
        self.first = nn.Sequential(nn.Conv2d(3, channels, 3, 2), nn.ReLU())
        self.depthwise = nn.Conv2d(channels, channels, 3, groups=channels)
        self.last = nn.Conv2d(channels, 8, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        made = self.first(images)
        read = self.depthwise(made)
        if self.reader == "addition":
            read = read + made[..., 1:-1, 1:-1]
        logits: torch.Tensor = self.last(read).mean((2, 3))
        return logits


def graph(channels: int, reader: str = "convolution") -> Any:
    torch.manual_seed(0)
    return to_onnx(Classifier(Unit(channels, reader).eval()), size=16)


def logits_of(model: Any) -> Logits:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    logits: Logits = session.run(None, {"pixels": pixels})[0]
    return logits


def channels_of(model: Any) -> list[tuple[int, ...]]:
    tensors = {tensor.name: to_array(tensor).shape for tensor in model.graph.initializer}
    return [tensors[node.input[1]][:2] for node in model.graph.node if node.op_type == "Conv"]


@pytest.mark.parametrize(("channels", "filled"), [(22, 24), (27, 28), (58, 60)])
def test_channels_become_a_multiple_of_four_and_answers_stay(channels: int, filled: int) -> None:
    model = graph(channels)
    expected = logits_of(model)
    assert fill_blocks(model) == 1
    read = {name for node in model.graph.node for name in node.input}
    assert read >= {tensor.name for tensor in model.graph.initializer}  # what was, is gone
    onnx.checker.check_model(model, full_check=True)
    assert channels_of(model) == [(filled, 3), (filled, 1), (8, filled)]
    assert relative_error(logits_of(model), expected) < 1e-6
    assert fill_blocks(model) == 0


@pytest.mark.parametrize(
    ("channels", "reader"),
    [
        (24, "convolution"),  # they are a multiple
        (9, "convolution"),  # three more would be a third
        (22, "addition"),
    ],
)
def test_leaves(channels: int, reader: str) -> None:
    model = graph(channels, reader)
    before = copy.deepcopy(model)
    assert fill_blocks(model) == 0
    assert model == before
