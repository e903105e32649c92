"""HardSigmoid in integers: the same levels, and no float32 between them."""

from __future__ import annotations

import copy
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array
from small_graphs import pixels_of, run_levels, run_onnx, small_graph

from artifact.artifact import Artifact
from artifact.golden import relative_error
from export.quantization.calibration import measure_ranges
from export.quantization.qdq import prepare, to_int8
from export.rewrites.hard_sigmoid import add_in_integers, restore
from export.to_onnx import to_onnx
from models.classifier import Classifier
from models.registry import build_model, find_model, list_models

EVERY = np.arange(256, dtype=np.uint8)


def one_layer(scale: float, zero: int, result: float = 1 / 255, **attributes: float) -> Any:
    """Returns an int8 HardSigmoid of (256,) levels, whose levels have steps of ``result``."""
    constants = {"s": np.float32(scale), "z": np.uint8(zero), "t": np.float32(result)}
    nodes = [
        helper.make_node("DequantizeLinear", ["levels", "s", "z"], ["x"]),
        helper.make_node("HardSigmoid", ["x"], ["y"], name="layer", **attributes),
        helper.make_node("QuantizeLinear", ["y", "t", "none"], ["results"]),
    ]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.UINT8, [256]) for n in ("levels", "results")
    ]
    tensors = [from_array(np.array(value), name) for name, value in constants.items()]
    tensors.append(from_array(np.array(0, np.uint8), "none"))
    graph = helper.make_graph(nodes, "one", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: Any, file: Path | None = None) -> np.ndarray:
    return run_levels(model, EVERY, file)


@pytest.mark.parametrize("result", [1 / 255, 0.8 / 255])
@pytest.mark.parametrize("zero", [0, 97, 255])
@pytest.mark.parametrize("scale", [0.003, 0.02, 0.0517, 0.3])
def test_every_level_becomes_the_same_or_one_beside_it(
    scale: float, zero: int, result: float, tmp_path: Path
) -> None:
    model = one_layer(scale, zero, result, alpha=1 / 6, beta=0.5)
    expected = run(model)
    assert len(set(expected)) > 5
    assert add_in_integers(model) == 1
    onnx.checker.check_model(model, full_check=True)
    levels = run(model, tmp_path / "run.onnx")
    assert np.abs(levels - expected).max() <= 1
    assert (levels != expected).sum() <= 5
    kinds = [node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node]
    assert kinds == ["QLinearAdd"]


def test_the_slope_that_onnx_means_by_default() -> None:
    model = one_layer(0.05, 128)
    expected = run(model)
    assert add_in_integers(model) == 1
    assert np.abs(run(model) - expected).max() <= 1


def test_levels_above_one_would_not_clip() -> None:
    model = one_layer(0.05, 128, 1.01 / 255)
    before = model.SerializeToString()
    assert add_in_integers(model) == 0
    assert model.SerializeToString() == before


def test_in_float32_it_stays() -> None:
    graph = copy.deepcopy(small_graph("convolutions"))
    kinds = Counter(node.op_type for node in graph.graph.node)
    assert add_in_integers(graph) == 0
    assert Counter(node.op_type for node in graph.graph.node) == kinds


def check(model: Any) -> None:
    """Checks an int8 graph of a float32 one with HardSigmoid against the same in float32."""
    prepared, pixels = prepare(model), pixels_of(model)
    hard = sum(node.op_type == "HardSigmoid" for node in prepared.graph.node)
    quantized = to_int8(prepared, measure_ranges(prepared, pixels, ["MinMax"])["MinMax"])
    rewritten = copy.deepcopy(quantized)
    assert add_in_integers(rewritten) == hard > 0
    assert "HardSigmoid" not in [node.op_type for node in rewritten.graph.node]
    expected = run_onnx(quantized, pixels)
    undone = copy.deepcopy(rewritten)
    restore(undone, rounded=True)
    np.testing.assert_array_equal(run_onnx(undone, pixels), expected)
    error = relative_error(run_onnx(prepared, pixels), expected)
    assert relative_error(run_onnx(rewritten, pixels), expected) < max(error, 0.01)


def test_a_small_network() -> None:
    check(small_graph("convolutions"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_models() if "mobilenet_v3" in name])
def test_every_network_that_has_it(name: str) -> None:
    torch.manual_seed(0)
    size = find_model(name).native_size
    check(to_onnx(Classifier(build_model(name).eval()), size=size))


def test_the_manifest_counts_what_was_replaced(artifacts: dict[str, Artifact]) -> None:
    artifact = artifacts["onnx-int8"]
    kinds = Counter(node.op_type for node in onnx.load(artifact.graph_file).graph.node)
    assert artifact.rewrites == {"hard_sigmoid": 29, "pixel_order": 1}
    assert kinds["HardSigmoid"] == 0
    assert artifacts["onnx-fp32"].rewrites == {"pixel_order": 1}
