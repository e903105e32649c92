"""An ONNX graph as a network of torch: the same answers, and int8 as XNNPACK knows it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx.numpy_helper import to_array
from small_graphs import NAMES, pixels_of, run_onnx, small_graph, strange_graph
from torch.fx import GraphModule, Node

from artifact.artifact import Artifact
from core.errors import UserError
from core.preprocess import Pixels
from export.executorch.build import to_network


def run_torch(network: GraphModule, pixels: Pixels) -> np.ndarray:
    with torch.inference_mode():
        return np.concatenate([network(each).numpy() for each in torch.from_numpy(pixels).split(1)])


@pytest.mark.parametrize("name", NAMES)
def test_answers_as_the_graph_does(name: str) -> None:
    graph = small_graph(name)
    pixels = pixels_of(graph)
    logits = run_torch(to_network(graph), pixels)
    np.testing.assert_allclose(logits, run_onnx(graph, pixels), rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def int8(artifacts: dict[str, Artifact]) -> tuple[Artifact, GraphModule]:
    """Returns the int8 artifact of the small trained network, and its graph in torch."""
    artifact = artifacts["onnx-int8"]
    return artifact, to_network(onnx.load(artifact.graph_file))


def test_int8_answers_as_the_graph_does(int8: tuple[Artifact, GraphModule]) -> None:
    artifact, network = int8
    pixels, golden = artifact.golden()
    logits = run_torch(network, pixels)
    assert (logits.argmax(axis=1) == golden.argmax(axis=1)).all()
    assert np.abs(logits - golden).max() <= 0.1 * np.abs(golden).max()


def test_int8_keeps_the_integers_that_were_chosen(int8: tuple[Artifact, GraphModule]) -> None:
    artifact, network = int8
    tensors = onnx.load(artifact.graph_file).graph.initializer
    chosen = [to_array(each) for each in tensors if each.data_type == onnx.TensorProto.INT8]
    kept = [each.numpy() for each in network.buffers() if each.dtype == torch.int8]
    weights = {each.tobytes() for each in chosen if each.ndim > 1}
    assert len(weights) > 40
    assert {each.tobytes() for each in kept} == weights


def kind(node: Node) -> str:
    return getattr(node.target, "__name__", str(node.target))


def test_every_int8_layer_has_the_form_that_xnnpack_takes(
    int8: tuple[Artifact, GraphModule],
) -> None:
    _, network = int8
    layers = [node for node in network.graph.nodes if kind(node) in ("conv2d", "linear")]
    assert len(layers) > 40
    for layer in layers:
        source, weight = layer.args[:2]
        assert kind(source) in ("dequantize_per_tensor.default", "dequantize_per_tensor.tensor")
        assert list(source.users) == [layer]
        assert kind(weight) == "dequantize_per_channel.default"
        (reader,) = layer.users
        if kind(source) == "dequantize_per_tensor.default":
            while kind(reader) in ("relu", "hardtanh"):
                (reader,) = reader.users
            assert kind(reader) == "quantize_per_tensor.default"
    (last,) = (node for node in network.graph.nodes if node.op == "output")
    assert kind(last.args[0]) == "linear"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gelu", "executorch: torch has no form here of Erf, Shape$"),
        ("windows", "executorch: the sizes of logits are known only as the graph runs"),
        (
            "attention",
            "executorch: MatMul attention: its floats is computed",
        ),
    ],
)
def test_refuses_what_it_has_no_form_of(name: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        to_network(strange_graph(name))
