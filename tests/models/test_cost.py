from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper
from shapes import shapes_only
from torch.utils.flop_counter import FlopCounterMode

from models.cost import known_costs, layer_costs, network_cost
from models.registry import build_model, find_model, list_models

Command = Callable[..., subprocess.CompletedProcess[str]]


def graph_of(nodes: list[onnx.NodeProto], weights: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    """Returns a model from float32 (batch, 4, 6, 6) to whatever ``y`` is, with weights of ones."""
    end = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", None, None, None])
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4, 6, 6])],
        [end],
        [onnx.numpy_helper.from_array(np.ones(s, np.float32), n) for n, s in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])


def test_a_grouped_convolution_and_its_relu_by_hand() -> None:
    conv = helper.make_node("Conv", ["x", "w", "b"], ["c"], group=2, pads=[1] * 4, strides=[2, 2])
    model = graph_of([conv, helper.make_node("Relu", ["c"], ["y"])], {"w": (8, 2, 3, 3), "b": (8,)})
    first, second = layer_costs(model)
    assert first.macs == 8 * 3 * 3 * (2 * 3 * 3)
    assert first.parameters == 8 * 2 * 3 * 3 + 8
    assert (first.inputs, first.outputs) == (4 * 6 * 6, 8 * 3 * 3)
    assert first.bytes_moved() == 4 * (144 + 152 + 72)
    assert first.bytes_moved("fp16") == 2 * (144 + 152 + 72)
    assert (second.macs, second.parameters, second.bytes_moved()) == (0, 0, 4 * (72 + 72))
    cost = network_cost(model, parameters=153)  # as torch has one more, that was zero
    assert (cost.macs, cost.parameters, cost.activations) == (1296, 153, 72)
    assert cost.bytes_moved == first.bytes_moved() + second.bytes_moved()
    assert cost.intensity == 2 * 1296 / cost.bytes_moved


def test_a_reshape_moves_nothing_and_its_shape_is_no_weight() -> None:
    model = graph_of([helper.make_node("Reshape", ["x", "s"], ["y"])], {})
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([0, 2, 12, 6]), "s"))
    (layer,) = layer_costs(model)
    assert (layer.macs, layer.parameters, layer.bytes_moved()) == (0, 0, 0)


def test_every_registry_network_was_counted() -> None:
    assert sorted(known_costs()) == list_models()


@pytest.mark.parametrize("name", list_models())
def test_macs_are_half_of_what_torch_counts_as_flops(name: str) -> None:
    entry = find_model(name)
    with shapes_only(), torch.inference_mode():
        network = build_model(name, num_classes=entry.native_classes).eval()
        image = torch.zeros(1, 3, entry.native_size, entry.native_size)
        with FlopCounterMode(display=False) as counter:
            network(image)
    cost = known_costs()[name]
    assert cost.macs * 2 == counter.get_total_flops()
    assert cost.parameters == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("mobilenet_v1", "4.2"),  # arXiv 1704.04861, Table 6
        ("mobilenet_v1_x0_75", "2.6"),
        ("mobilenet_v1_x0_5", "1.3"),
        ("mobilenet_v1_x0_25", "0.5"),
        ("shufflenet_v2_x1_0", "2.3"),  # megvii's README
        ("shufflenet_v2_x1_5", "3.5"),
        ("shufflenet_v2_x2_0", "7.4"),
        ("efficientnet_b0", "5.3"),  # arXiv 1905.11946, Table 2
        ("efficientnet_b1", "7.8"),
        ("efficientnet_b4", "19.3"),
        ("efficientnet_b7", "66.3"),
        ("efficientnet_lite0", "4.7"),  # tensorflow/tpu, efficientnet/lite/README.md
        ("efficientnet_lite1", "5.4"),
        ("efficientnet_lite2", "6.1"),
        ("densenet121", "8.0"),
        ("vgg16", "138.4"),  # arXiv 1409.1556, Table 2: 138
        ("resnet50", "25.6"),
        ("se_resnet50", "28.1"),  # arXiv 1709.01507, Section 4
        ("resnet14", "0.2"),
    ],
)
def test_parameters_are_those_that_papers_print(name: str, millions: str) -> None:
    assert f"{known_costs()[name].parameters / 1e6:.1f}" == millions


def test_activations_of_resnet50_are_those_timm_prints() -> None:
    assert round(known_costs()["resnet50"].activations / 1e6, 2) == 11.11


def test_table_filtered_and_sorted(command: Command) -> None:
    rows = json.loads(
        command("models", "--family", "vgg", "mobilenet_v2", "--sort", "macs", "--json").stdout
    )
    names = [row["name"] for row in rows]
    assert names[0] == "mobilenet_v2_x0_35"
    assert names[-1] == "vgg16"
    assert {row["family"] for row in rows} == {"vgg", "mobilenet_v2"}
    assert [row["macs"] for row in rows] == sorted(row["macs"] for row in rows)
    assert rows[-1]["size"] == 224


def test_table_as_text_and_markdown_hold_every_network(command: Command) -> None:
    text, markdown = command("models").stdout, command("models", "--markdown").stdout
    for name in list_models():
        assert f" {name} " in text
        assert f"| {name} |" in markdown
    assert " 568.7 " in text  # MobileNetV1's M MACs


def test_unknown_family_is_one_line(command: Command) -> None:
    ended = command("models", "--family", "mobilenet")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: unknown family 'mobilenet': did you mean mobilenet_v")
    assert ended.stderr.count("\n") == 1


def test_the_bounds_of_a_clip_are_no_weights() -> None:
    model = graph_of([helper.make_node("Clip", ["x", "low", "high"], ["y"])], {})
    for name, bound in (("low", 0.0), ("high", 6.0)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(bound), name))
    (layer,) = layer_costs(model)
    assert (layer.op, layer.parameters) == ("Clip", 0)


def test_any_network_is_counted_at_any_size_it_takes(command: Command) -> None:
    names = ("timm/test_resnet", "mobilenet_v1_x0_25")
    rows = {}
    for size in (64, 128):
        printed = command("models", *names, "--size", str(size), "--json").stdout
        rows[size] = {row["name"]: row for row in json.loads(printed)}
    for name in names:
        small, large = rows[64][name], rows[128][name]
        assert (small["size"], large["size"]) == (64, 128)
        assert small["parameters"] == large["parameters"]
        assert 2 < large["macs"] / small["macs"] < 4  # the last layers do not grow
    (known,) = json.loads(command("models", "mobilenet_v1_x0_25", "--json").stdout)
    assert known["macs"] == known_costs()["mobilenet_v1_x0_25"].macs


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--size", "64"), "--size 64: no network is named"),
        (("--channels", "1"), "--channels 1: no network is named"),
        (("vgg16", "--size", "31"), "vgg16 cannot take 31x31 images: at least 32x32"),
        (("vgg16", "--family", "vgg"), "networks and --family are both given"),
        (("--input-sizes", "vgg16", "--size", "64"), "--input-sizes tries the sizes itself"),
    ],
)
def test_what_cannot_be_counted_is_one_line(
    command: Command, arguments: tuple[str, ...], reason: str
) -> None:
    printed = command("models", *arguments)
    assert printed.returncode == 1
    assert printed.stderr.startswith(f"error: {reason}")
    assert printed.stderr.count("\n") == 1
