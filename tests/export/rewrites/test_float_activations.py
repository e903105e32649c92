"""Only the inputs of convolutions rounded: closer to float32, and OpenVINO's own format."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from small_graphs import SIDE, pixels_of, run_onnx, small_graph
from torch import nn

from artifact.artifact import Artifact
from artifact.golden import relative_error
from artifact.runtimes.base import load_runtime
from artifact.runtimes.openvino_cpu import core
from export.build import build_artifacts
from export.network import load_network
from export.quantization.calibration import measure_ranges
from export.quantization.qdq import DEQUANTIZE, WEIGHTED, prepare, to_int8
from export.rewrites.float_activations import round_inputs_only
from export.rewrites.hard_sigmoid import add_in_integers, restore
from export.to_onnx import to_onnx
from export.to_openvino import build
from models.classifier import Classifier

FLOAT32 = {"INFERENCE_PRECISION_HINT": "f32"}  # never bfloat16, as the runtime has it


def int8(prepared: Any) -> Any:
    return to_int8(prepared, measure_ranges(prepared, pixels_of(prepared), ["MinMax"])["MinMax"])


def check(model: Any) -> Any:
    """Checks that only inputs of convolutions are rounded, and for the better."""
    prepared = prepare(model)
    quantized = int8(prepared)
    rewritten = copy.deepcopy(quantized)
    add_in_integers(rewritten)
    assert round_inputs_only(rewritten) > 0
    onnx.checker.check_model(rewritten, full_check=True)
    makers = {name: node.op_type for node in rewritten.graph.node for name in node.output}
    moved = next(node for node in rewritten.graph.node if node.op_type == "Transpose")
    assert makers[moved.input[0]] == DEQUANTIZE  # pixels, rounded before their channels are moved
    makers[moved.output[0]] = DEQUANTIZE
    for node in rewritten.graph.node:
        if node.op_type in WEIGHTED:
            assert makers[node.input[0]] == DEQUANTIZE
        elif node.op_type not in ("QuantizeLinear", DEQUANTIZE) and node.name != moved.name:
            assert DEQUANTIZE not in [makers.get(name) for name in node.input]
    pixels = pixels_of(model)
    exact = run_onnx(prepared, pixels)
    before, after = (run_onnx(graph, pixels) for graph in (quantized, rewritten))
    assert relative_error(after, exact) <= max(relative_error(before, exact), 0.02)
    return rewritten


def test_activations_are_in_float32_and_hard_swish_is_one_node() -> None:
    kinds = [node.op_type for node in check(small_graph("convolutions")).graph.node]
    assert kinds.count("HardSwish") == kinds.count("HardSigmoid") == 1


class Residual(nn.Module):
    """A pool, then two sums of a ResNet, each read by a convolution, a sum or both; or no ReLU."""

    def __init__(self, *, relu: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.blocks = nn.ModuleList(nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.last = nn.Linear(8, 5)
        self.activation = nn.ReLU() if relu else nn.Identity()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = self.pool(torch.relu(self.stem(images)))
        for block in self.blocks:
            values = self.activation(values + block(values))
        logits: torch.Tensor = self.last(values.mean([2, 3]))
        return logits


def residual(*, relu: bool) -> Any:
    torch.manual_seed(0)
    return to_onnx(Classifier(Residual(relu=relu).eval()), size=SIDE)


def read_rounded(model: Any, kind: str) -> list[bool]:
    """Returns whether each input of the nodes of a kind is rounded, without those of constants."""
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    nodes = [node for node in model.graph.node if node.op_type == kind]
    return [makers[name] == DEQUANTIZE for node in nodes for name in node.input if name in makers]


def test_sums_before_a_relu_stay_rounded_for_all_their_readers() -> None:
    model = residual(relu=True)
    prepared = prepare(model)
    quantized = int8(prepared)
    rewritten = copy.deepcopy(quantized)
    round_inputs_only(rewritten)
    onnx.checker.check_model(rewritten, full_check=True)
    normalisation, *sums = read_rounded(rewritten, "Add")
    assert not normalisation
    assert sums == [True] * 4
    assert read_rounded(rewritten, "MaxPool") == read_rounded(rewritten, "ReduceMean") == [True]
    assert not {"Relu", "Clip"} & {node.op_type for node in rewritten.graph.node}
    pixels = pixels_of(model)
    after = run_onnx(rewritten, pixels)
    assert relative_error(after, run_onnx(quantized, pixels)) < 0.01
    assert relative_error(after, run_onnx(prepared, pixels)) < 0.02


def test_other_sums_are_in_float32() -> None:
    rewritten = int8(prepare(residual(relu=False)))
    assert read_rounded(rewritten, "Add")[1:] == [True] * 4
    assert round_inputs_only(rewritten) > 0
    assert read_rounded(rewritten, "Add")[1:] == [False] * 4
    assert read_rounded(rewritten, "ReduceMean") == [False]


def test_openvino_adds_in_the_convolution_as_onnx_runtime_does(tmp_path: Path) -> None:
    model = residual(relu=True)
    graph = int8(prepare(model))
    round_inputs_only(graph)
    compiled = core().compile_model(core().read_model(graph.SerializeToString()), "CPU", FLOAT32)
    pixels = pixels_of(model)
    logits = np.concatenate(
        [compiled(pixels[index : index + 1])[0] for index in range(len(pixels))]
    )
    assert relative_error(logits, run_onnx(graph, pixels)) < 0.05


class Clipped(nn.Module):
    """A sum that reads what a ReLU6 clips: the int8 graph has none, as its levels end there."""

    def __init__(self, *, joined: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)
        self.last = nn.Linear(8, 5)
        self.joined = joined

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = 8 * self.first(images)
        if self.joined:
            values = torch.cat([values[:, 4:], values[:, :4]], dim=1)
        values = nn.functional.relu6(values)
        logits: torch.Tensor = self.last((values + self.second(values)).mean([2, 3]))
        return logits


@pytest.mark.parametrize("joined", [False, True])
def test_what_levels_clipped_is_clipped_still(joined: bool) -> None:
    torch.manual_seed(0)
    model = to_onnx(Classifier(Clipped(joined=joined).eval()), size=SIDE)
    assert "Clip" not in [node.op_type for node in int8(prepare(model)).graph.node]
    assert "Clip" in [node.op_type for node in check(model).graph.node]


def test_hard_sigmoid_comes_back() -> None:
    graph = int8(prepare(small_graph("convolutions")))
    attributes = [
        {each.name: each.f for each in node.attribute}
        for node in graph.graph.node
        if node.op_type == "HardSigmoid"
    ]
    assert len(attributes) == add_in_integers(graph) == 2
    restore(graph)
    found = [node for node in graph.graph.node if node.op_type == "HardSigmoid"]
    for node, values in zip(found, attributes, strict=True):
        assert {each.name: each.f for each in node.attribute} == pytest.approx(values, rel=1e-6)


def test_openvino_answers_as_the_graph_does(artifacts: dict[str, Artifact], tmp_path: Path) -> None:
    source = artifacts["onnx-int8"]
    draft = build(
        replace(source, path=tmp_path, format="openvino"), source.graph_file.read_bytes(), ()
    )
    assert draft.rewrites.keys() == {"float_activations", "pixel_order"}
    assert {file.name for file in tmp_path.iterdir()} == set(draft.spec.files)
    pixels, golden = source.golden()
    with load_runtime("openvino", draft, threads=1) as runtime:
        logits = runtime(pixels)
        alone = np.concatenate([runtime(pixels[index : index + 1]) for index in range(len(pixels))])
    assert (logits.argmax(axis=1) == golden.argmax(axis=1)).all()
    assert relative_error(logits, golden) < 0.1
    assert relative_error(alone, logits) < 0.1


def test_no_rewrite_is_recorded_where_all_stays_rounded(
    artifacts: dict[str, Artifact], tmp_path: Path
) -> None:
    graph = int8(prepare(residual(relu=True))).SerializeToString()
    source = replace(artifacts["onnx-int8"], path=tmp_path, format="openvino", rewrites={})
    assert build(source, graph, ()).rewrites == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["efficientnet_lite0", "efficientnet_b0", "shufflenet_v2_x0_5"])
def test_it_passes_its_gates(name: str, here: Path) -> None:
    weights = "imagenet" if name == "efficientnet_lite0" else "random"
    (outcome,) = build_artifacts(load_network(name, None, weights), ["openvino-int8"])
    assert outcome.reason is None
    assert outcome.artifact is not None
    assert outcome.artifact.rewrites["float_activations"] > 0
