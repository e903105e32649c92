"""Shuffles folded into grouped convolutions: the same levels, with products of 0 as well."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.numpy_helper import from_array
from small_graphs import pixels_of, run_onnx
from torch import nn

from export.quantization.calibration import measure_ranges
from export.quantization.qdq import prepare, to_int8
from export.rewrites import average_pool, grouped_shuffle
from export.rewrites.grouped_shuffle import fold_into_groups, restore
from export.to_onnx import to_onnx
from models.classifier import Classifier
from models.registry import build_model
from models.shufflenet_v1 import ShuffleUnit

SIDE = 20


def kinds(model: Any) -> Counter[str]:
    return Counter(node.op_type for node in model.graph.node)


def int8_of(network: nn.Module, size: int, *, symmetric: bool = False) -> Any:
    prepared = prepare(to_onnx(Classifier(network.eval()), size=size))
    ranges = measure_ranges(prepared, pixels_of(prepared), ["MinMax"])["MinMax"]
    return to_int8(prepared, ranges, symmetric=symmetric)


def one_unit(*, groups: int = 3, stride: int = 1, symmetric: bool = False) -> Any:
    """Returns an int8 graph of a unit with 24 channels."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 24, 3, 2, 1),
        nn.ReLU(),
        ShuffleUnit(24, 24 * stride, stride, groups, first=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(24 * stride, 5),
    )
    return int8_of(network, SIDE, symmetric=symmetric)


@pytest.mark.parametrize(("groups", "stride"), [(3, 1), (3, 2), (2, 1), (6, 1)])
def test_every_logit_is_the_same_to_the_bit(groups: int, stride: int) -> None:
    model = one_unit(groups=groups, stride=stride)
    before, expected = kinds(model), run_onnx(model, pixels_of(model))
    assert expected.std() > 0
    assert fold_into_groups(model) == 1
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(run_onnx(model, pixels_of(model)), expected)
    assert before["Reshape"] - kinds(model)["Reshape"] == 2
    assert fold_into_groups(model) == 0

    average_pool.average_by_convolutions(model)
    average_pool.restore(model)  # takes none of these convolutions for a pool
    assert restore(model) == 1
    onnx.checker.check_model(model, full_check=True)
    assert kinds(model) == before
    np.testing.assert_array_equal(run_onnx(model, pixels_of(model)), expected)
    assert fold_into_groups(model) == 1
    np.testing.assert_array_equal(run_onnx(model, pixels_of(model)), expected)


@pytest.mark.parametrize(("name", "units"), [("shufflenet_v1_g3", 6), ("shufflenet_v1_g8", 3)])
def test_units_with_few_channels_for_their_images_are_folded(name: str, units: int) -> None:
    torch.manual_seed(0)
    model = int8_of(build_model(name), 64)
    expected = run_onnx(model, pixels_of(model))
    assert fold_into_groups(model) == units  # in the second stage, and the first of each other
    np.testing.assert_array_equal(run_onnx(model, pixels_of(model)), expected)


def other_scale(model: Any) -> None:
    swap = _swap(model)
    rounds = next(node for node in model.graph.node if node.input[0] == swap.output[0])
    model.graph.initializer.append(from_array(np.float32(0.7), "another"))
    rounds.input[1] = "another"


def another_reader(model: Any) -> None:
    swap = _swap(model)
    model.graph.node.append(onnx.helper.make_node("Relu", [swap.output[0]], ["more"]))
    info = onnx.helper.make_tensor_value_info("more", onnx.TensorProto.FLOAT, None)
    model.graph.output.append(info)


def other_swap(model: Any) -> None:
    perm = next(each for each in _swap(model).attribute if each.name == "perm")
    perm.ints[:] = [0, 1, 2, 4, 3]


def _swap(model: Any) -> Any:
    return next(
        node
        for node in model.graph.node
        if node.op_type == "Transpose" and len(node.attribute[0].ints) == 5
    )


@pytest.mark.parametrize("change", [other_scale, another_reader, other_swap])
def test_leaves_what_is_no_such_place(change: Any) -> None:
    model = one_unit()
    change(model)
    before = model.SerializeToString()
    assert fold_into_groups(model) == 0
    assert model.SerializeToString() == before


def test_leaves_what_would_multiply_too_much_and_what_is_shuffled_in_float32(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert fold_into_groups(one_unit(symmetric=True)) == 0
    monkeypatch.setattr(grouped_shuffle, "_MOST", 15)
    assert fold_into_groups(one_unit()) == 0  # 24 results, two of three products are with 0
    monkeypatch.setattr(grouped_shuffle, "_MOST", 16)
    assert fold_into_groups(one_unit()) == 1
