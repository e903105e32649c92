from __future__ import annotations

from collections.abc import Callable

import pytest

from artifact.artifact import Artifact
from bench.latency.costs import count_costs


def test_costs_are_those_of_the_graph(make_artifact: Callable[..., Artifact]) -> None:
    """The tiny graph: a cast and a mean over 32 x 32 pixels, nothing that multiplies."""
    costs = count_costs(make_artifact())
    assert (costs.macs, costs.parameters, costs.activations) == (0, 0, 0)
    assert costs.kernels > 0
    assert costs.bytes_moved >= 3 * 32 * 32 * 4
    assert (costs.depthwise, costs.pointwise, costs.grouped) == (0, 0, 0)


@pytest.mark.parametrize("kind", ["depthwise", "pointwise", "grouped"])
def test_shares_are_of_the_macs(kind: str, tmp_path: object) -> None:
    from dataclasses import dataclass

    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    shapes = {"depthwise": (8, 1, 3, 3), "pointwise": (8, 8, 1, 1), "grouped": (8, 4, 3, 3)}
    groups = {"depthwise": 8, "pointwise": 1, "grouped": 2}
    weight = np.zeros(shapes[kind], np.float32)
    last = np.zeros((2, 8, 3, 3), np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "w"], ["y"], name="a", group=groups[kind]),
            helper.make_node("Conv", ["y", "v"], ["z"], name="b"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8, 9, 9])],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 2, None, None])],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(last, "v")],
    )
    path = f"{tmp_path}/model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), path)

    @dataclass
    class Named:
        model_file: str
        parameters: int

    costs = count_costs(Named(path, parameters=7))  # type: ignore[arg-type]
    assert costs.parameters == 7
    side = 9 if kind == "pointwise" else 7
    first = weight[0].size * 8 * side * side
    second = 8 * 9 * 2 * (side - 2) ** 2
    assert costs.macs == first + second
    assert getattr(costs, kind) == pytest.approx(first / (first + second))
    assert costs.depthwise + costs.pointwise + costs.grouped == getattr(costs, kind)
