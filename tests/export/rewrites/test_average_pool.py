"""Average pools as convolutions: the same levels, in integer kernels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx.numpy_helper import from_array
from small_graphs import run_levels

from export.rewrites.average_pool import average_by_convolutions, restore

CHANNELS, SIDE = 8, 9


def one_pool(zero: int, rounded: bool = True, **values: Any) -> Any:
    """Returns a graph of an int8 pool of levels, whose result is float32 unless ``rounded``."""
    constants = {"s": np.float32(0.02), "z": np.uint8(zero), "t": np.float32(0.015)}
    nodes = [
        helper.make_node("DequantizeLinear", ["levels", "s", "z"], ["x"]),
        helper.make_node("AveragePool", ["x"], ["y"], name="pool", **values),
        helper.make_node("QuantizeLinear", ["y", "t", "z"], ["results"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, kind, ["batch", CHANNELS, *sides])
        for name, kind, sides in (
            ("levels", TensorProto.UINT8, (SIDE, SIDE)),
            ("results" if rounded else "y", (1, 2)[rounded], ("height", "width")),
        )
    ]
    tensors = [from_array(np.array(value), name) for name, value in constants.items()]
    kept = nodes[: 2 + rounded]
    graph = helper.make_graph(kept, "one", ends[:1], ends[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: Any, file: Path | None = None) -> np.ndarray:
    shape = (2, CHANNELS, SIDE, SIDE)
    levels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return run_levels(model, levels, file)


@pytest.mark.parametrize("zero", [0, 77])
@pytest.mark.parametrize(
    "values",
    [
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1] * 4, "count_include_pad": 1},
        {"kernel_shape": [3, 1]},
        {"kernel_shape": [3, 3], "strides": [3, 3], "ceil_mode": 1},  # nothing hangs over
    ],
)
def test_every_level_is_the_same(zero: int, values: dict[str, Any], tmp_path: Path) -> None:
    model = one_pool(zero, **values)
    expected = run(model)
    assert average_by_convolutions(model) == 1
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(run(model, tmp_path / "run.onnx"), expected)
    kinds = [node.op_type for node in onnx.load(tmp_path / "run.onnx").graph.node]
    assert "QLinearConv" in kinds
    restore(model)
    np.testing.assert_array_equal(run(model), expected)


@pytest.mark.parametrize(
    "values",
    [
        {"kernel_shape": [3, 3], "pads": [1] * 4},  # fewer values at an edge
        {"kernel_shape": [3, 3], "strides": [4, 4], "ceil_mode": 1},
        {"kernel_shape": [3, 3], "rounded": False},
        {"kernel_shape": [2, 2], "strides": [2, 2]},  # averages halfway between two levels
    ],
)
def test_leaves(values: dict[str, Any]) -> None:
    model = one_pool(3, **values)
    before = model.SerializeToString()
    assert average_by_convolutions(model) == 0
    assert model.SerializeToString() == before
