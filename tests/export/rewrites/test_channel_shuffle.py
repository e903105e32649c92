"""Channel shuffles folded into weights: the same products, without the nodes that shuffled."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.numpy_helper import from_array, to_array
from small_graphs import SIDE, pixels_of, small_graph
from torch import nn

from artifact.golden import relative_error
from artifact.records import Logits
from export.rewrites.channel_shuffle import fold_shuffles
from export.to_onnx import to_onnx
from models.classifier import Classifier
from models.registry import build_model, find_model, list_models


def kinds(model: Any) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def run(model: Any) -> Logits:
    """Returns the logits of a graph, each node by itself."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    logits: Logits = session.run(None, {"pixels": pixels_of(model)})[0]
    return logits


def network(name: str, size: int) -> Any:
    torch.manual_seed(0)
    return to_onnx(Classifier(build_model(name).eval()), size=size)


def with_one_product(model: Any) -> Any:
    """Returns a copy whose convolutions of channels have one weight that is not 0 for each result.

    So its sums do not depend on the order in which products are added up.
    """
    model = copy.deepcopy(model)
    random = np.random.default_rng(0)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Conv":
            tensor = tensors[node.input[1]]
            weight = to_array(tensor)
            if weight.shape[1] > 1:
                chosen = random.integers(0, weight[0].size, len(weight))
                rows = np.zeros((len(weight), weight[0].size), np.float32)
                rows[np.arange(len(rows)), chosen] = random.uniform(1, 2, len(rows))
                tensor.CopyFrom(from_array(rows.reshape(weight.shape), tensor.name))
    return model


def check(model: Any, folded: int) -> None:
    """Checks a graph against itself with so many shuffles folded."""
    exact, rewritten = with_one_product(model), copy.deepcopy(model)
    expected = run(exact)
    assert np.ptp(expected) > 0
    assert fold_shuffles(exact) == folded
    np.testing.assert_array_equal(run(exact), expected)
    assert fold_shuffles(rewritten) == folded
    onnx.checker.check_model(rewritten, full_check=True)
    assert relative_error(run(rewritten), run(model)) < 1e-5
    assert kinds(model)["Transpose"] - kinds(rewritten)["Transpose"] == folded


def shuffled(*parts: torch.Tensor) -> torch.Tensor:
    values = torch.cat(parts, dim=1)
    batch, channels, height, width = values.shape
    return values.view(batch, 2, channels // 2, height, width).transpose(1, 2).flatten(1, 2)


class Shuffling(nn.Module):
    """Two convolutions, a shuffle of what they make, and what reads it, by its name."""

    def __init__(self, reader: str) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 6, 3)
        self.mixing, self.mixing_half = nn.Conv2d(12, 12, 3), nn.Conv2d(6, 12, 3)
        self.depthwise = nn.Conv2d(12, 12, 3, groups=12)
        self.grouped = nn.Conv2d(12, 12, 3, groups=2)
        self.last = nn.Linear(12, 5)
        self.reader = reader

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        left, right = self.left(images).relu(), self.right(images).relu()
        values = self.read(shuffled(left, right), left)
        return self.last(values.mean([2, 3]))

    def read(self, values: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
        match self.reader:
            case "a convolution":
                return self.mixing(values)
            case "convolutions of its halves":
                first, second = values.split([6, 6], dim=1)
                return self.mixing_half(first) * self.mixing_half(second)
            case "one behind a depthwise one":
                return self.mixing(self.depthwise(values).relu())
            case "one of groups":
                return self.grouped(values)
            case "one and another operator":
                return self.mixing(values) + values.mean([2, 3], keepdim=True)
            case "another operator behind a depthwise one":
                return self.depthwise(values).sigmoid()
            case "one, beside an operator that reads a part before":
                return self.mixing(values) + left.mean([1, 2, 3], keepdim=True)
            case "one of a half only":
                return self.mixing_half(values.split([6, 6], dim=1)[1])
        raise AssertionError(self.reader)


def shuffling(network: nn.Module) -> Any:
    torch.manual_seed(0)
    return to_onnx(Classifier(network.eval()), size=SIDE)


@pytest.mark.parametrize(
    "reader", ["a convolution", "convolutions of its halves", "one behind a depthwise one"]
)
def test_folds_what_is_read_by(reader: str) -> None:
    check(shuffling(Shuffling(reader)), 1)


def test_a_shuffle_of_one_convolution_may_be_read_by_anything() -> None:
    layers = nn.Conv2d(3, 12, 3), nn.ReLU6(), nn.ChannelShuffle(3), nn.Sigmoid()
    check(shuffling(nn.Sequential(*layers, nn.Flatten(), nn.Linear(12 * (SIDE - 2) ** 2, 5))), 1)


@pytest.mark.parametrize(
    "reader",
    [
        "one of groups",
        "one and another operator",
        "another operator behind a depthwise one",
        "one, beside an operator that reads a part before",
        "one of a half only",
    ],
)
def test_leaves_what_is_read_by(reader: str) -> None:
    model = shuffling(Shuffling(reader))
    before = model.SerializeToString()
    assert kinds(model)["Transpose"] == 2
    assert fold_shuffles(model) == 0
    assert model.SerializeToString() == before


def test_leaves_a_unit_of_grouped_convolutions() -> None:
    model = copy.deepcopy(small_graph("shuffle"))
    before = model.SerializeToString()
    assert fold_shuffles(model) == 0
    assert model.SerializeToString() == before


def test_a_small_network_keeps_its_answers_to_the_bit() -> None:
    model = network("shufflenet_v2_x0_5", 64)
    check(model, 16)
    fold_shuffles(model)
    assert kinds(model)["Reshape"] == 0
    for tensor in model.graph.initializer:
        if tensor.name.endswith("/sizes"):
            sizes = to_array(tensor).tolist()
            assert sizes[0] == sum(sizes) // 2  # the next unit computes with half of them


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_models() if "shufflenet" in name])
def test_every_network_that_shuffles(name: str) -> None:
    model = network(name, find_model(name).native_size)
    shuffles = kinds(model)["Transpose"] - 1
    # Of V1, whose convolutions see a group each, only the one that sees all.
    check(model, shuffles if "v2" in name else min(shuffles, 1))
