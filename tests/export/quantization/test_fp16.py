from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import nn

from artifact.gates import DEFAULTS, GateError
from artifact.golden import relative_error
from artifact.records import Source
from core.preprocess import Pixels, Preprocess
from export.graphs import Graphs
from export.network import Network
from export.quantization.fp16 import emulate, fp16_candidates, overflowing_layers, to_fp16
from export.quantization.probe import logits_of
from export.quantization.sensitivity import counts, layer_errors
from export.to_onnx import to_onnx
from models.classifier import Classifier
from training.data import Sample

SIDE = 16
LIMITS = DEFAULTS["fp16"]


class Chain(nn.Module):
    """A few convolutions whose weights can be spoiled."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU())
        self.up = nn.Conv2d(8, 8, 1)
        self.down = nn.Conv2d(8, 8, 1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = self.stem(images)
        logits: torch.Tensor = self.head(images + self.down(self.up(images)))
        return logits


def plain() -> Classifier:
    torch.manual_seed(0)
    return Classifier(Chain()).eval()


@torch.no_grad()
def overflowing() -> Classifier:
    """Returns a network with an activation of some 1e5 between two layers."""
    network = plain()
    chain: Any = network.backbone
    chain.up.weight *= 1e5
    chain.up.bias *= 1e5
    chain.down.weight /= 1e5
    return network


@torch.no_grad()
def cancelling() -> Classifier:
    """Returns a network whose layer ``up`` takes the difference of equal channels.

    Half of what its weights have in common with their opposites is below the steps of float16.
    """
    network = plain()
    chain: Any = network.backbone
    first = chain.stem[0]
    first.weight[4:], first.bias[4:] = first.weight[:4], first.bias[:4]
    small = chain.up.weight[:, :4].clone()
    chain.up.weight[:, :4] = 4096 + small
    chain.up.weight[:, 4:] = -4096
    chain.down.weight *= 20
    return network


@torch.no_grad()
def offset() -> Classifier:
    """Returns a network that adds 8192 and takes it off again: its activation has steps of 8."""
    network = plain()
    chain: Any = network.backbone
    chain.up.weight *= 4
    chain.up.bias += 8192
    chain.down.weight *= 4
    chain.down.bias -= 8192 * chain.down.weight.sum(dim=(1, 2, 3))
    return network


@functools.cache
def graph_of(make: Callable[[], Classifier]) -> Any:
    """Returns the float32 graph of the network that ``make`` returns."""
    return to_onnx(make(), size=SIDE)


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    """Returns uint8 (64, 16, 16, 3)."""
    coarse = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


def layers(graph: Any, op: str) -> list[str]:
    return [node.name for node in graph.graph.node if node.op_type == op]


def node(graph: Any, name: str) -> Any:
    (found,) = (node for node in graph.graph.node if node.name == name)
    return found


def typed(graph: Any) -> Any:
    return onnx.shape_inference.infer_shapes(graph)


def weight_type(graph: Any, name: str) -> int:
    types = {tensor.name: tensor.data_type for tensor in graph.graph.initializer}
    return int(types[node(graph, name).input[1]])


def test_a_normal_network_is_float16_throughout(pixels: Pixels) -> None:
    graph = graph_of(plain)
    first = next(fp16_candidates(graph, pixels, LIMITS))
    assert first.fp32_layers == ()
    halves = {weight_type(first.model, name) for name in layers(graph, "Conv")}
    assert halves == {onnx.TensorProto.FLOAT16}


def test_a_cpu_hides_what_overflows(pixels: Pixels) -> None:
    graph = graph_of(overflowing)
    assert np.isfinite(logits_of(to_fp16(graph), pixels)).all()
    assert not np.isfinite(logits_of(emulate(typed(graph)), pixels)).all()


def test_what_would_overflow_is_float32_from_the_first(pixels: Pixels) -> None:
    graph = graph_of(overflowing)
    first = next(fp16_candidates(graph, pixels, LIMITS))
    up, down = layers(graph, "Conv")[1:]
    assert first.fp32_layers == (up, down)  # one makes the large values, the other reads them
    emulated = logits_of(emulate(typed(graph), first.fp32_layers), pixels)
    np.testing.assert_allclose(emulated, logits_of(graph, pixels), atol=5e-3)
    # Nothing between them rounds: on a GPU it would be infinite.
    source = node(first.model, down).input[0]
    makers = {name: node for node in first.model.graph.node for name in node.output}
    while makers[source].op_type == "Cast":
        source = makers[source].input[0]
        assert source not in {info.name for info in halves(first.model)}
    assert makers[source].name == up


def halves(graph: Any) -> Iterator[Any]:
    for info in typed(graph).graph.value_info:
        if info.type.tensor_type.elem_type == onnx.TensorProto.FLOAT16:
            yield info


def test_a_constant_that_would_be_clamped_is_float32(pixels: Pixels) -> None:
    network = plain()
    with torch.no_grad():
        backbone: Any = network.backbone
        backbone.up.weight[0, 0] = 1e5
    graph = typed(to_onnx(network, size=SIDE))
    assert layers(graph, "Conv")[1] in overflowing_layers(graph, pixels[:1] // 255)


def test_constants_too_small_for_float16_show_in_the_error(pixels: Pixels) -> None:
    network = plain()
    with torch.no_grad():
        backbone: Any = network.backbone
        backbone.up.weight *= 1e-7
        backbone.up.bias.zero_()
        backbone.down.weight *= 5e4
        backbone.down.bias.zero_()
    graph = typed(to_onnx(network, size=SIDE))
    worst = next(iter(layer_errors(graph, emulate(graph), pixels).items()))
    assert worst[0] == layers(graph, "Conv")[1]
    assert worst[1] > 0.01


def test_the_layer_that_loses_is_the_one_that_goes_back(pixels: Pixels) -> None:
    graph = graph_of(cancelling)
    first = next(fp16_candidates(graph, pixels, LIMITS))
    assert first.fp32_layers == (layers(graph, "Conv")[1],)
    right = logits_of(graph, pixels)
    for fp32_layers, least, most in (((), 0.0, 0.9), (first.fp32_layers, 0.95, 1.0)):
        answers = logits_of(to_fp16(graph, fp32_layers), pixels).argmax(axis=1)
        assert least <= (answers == right.argmax(axis=1)).mean() <= most


def test_what_feeds_a_layer_goes_back_with_it(pixels: Pixels) -> None:
    graph = graph_of(offset)
    first = next(fp16_candidates(graph, pixels, LIMITS))
    up, down = layers(graph, "Conv")[1:]
    assert set(first.fp32_layers) == {up, down}
    emulated = logits_of(emulate(typed(graph)), pixels)
    assert np.abs(emulated - logits_of(graph, pixels)).max() > 1


def test_asked_for_more_more_layers_go_back(pixels: Pixels) -> None:
    graph = graph_of(plain)
    found = list(fp16_candidates(graph, pixels, LIMITS))
    left = [len(candidate.fp32_layers) for candidate in found]
    assert left[0] == 0
    assert left[1] == 1
    assert max(left) >= len(graph.graph.node) // 3
    for candidate in found:
        np.testing.assert_allclose(
            logits_of(candidate.model, pixels), logits_of(graph, pixels), atol=0.01
        )


def test_where_no_graph_holds_it_is_said(pixels: Pixels) -> None:
    with pytest.raises(GateError, match="float16 arithmetic"):
        list(fp16_candidates(graph_of(plain), pixels, replace(LIMITS, golden_error=1e-9)))


def test_emulation_rounds_what_the_graph_rounds(pixels: Pixels) -> None:
    graph = graph_of(plain)
    exact = logits_of(graph, pixels)
    left = [node.name for node in graph.graph.node]
    np.testing.assert_allclose(logits_of(emulate(typed(graph), left), pixels), exact, atol=1e-6)
    rounded = logits_of(emulate(typed(graph)), pixels)
    np.testing.assert_array_equal(rounded, rounded.astype(np.float16))
    assert 0 < np.abs(rounded - exact).max() < 0.01


class Shrinking(nn.Module):
    """Resizes by a factor that float16 rounds down: 12 x 11/12 is 10 there."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        smaller = nn.functional.interpolate(images[..., :12, :12], size=(11, 11), mode="bilinear")
        return smaller.flatten(1)[:, ::99]


def test_factors_of_a_resize_are_not_rounded(pixels: Pixels) -> None:
    graph = typed(to_onnx(Classifier(Shrinking()), size=SIDE))
    expected = logits_of(graph, pixels)
    for made in (emulate(graph), to_fp16(graph)):
        assert relative_error(logits_of(made, pixels), expected) < 0.01


def test_two_float32_layers_may_read_the_same(pixels: Pixels) -> None:
    """The converter casts it twice, by the same name."""
    graph = graph_of(plain)
    readers = [layers(graph, "Conv")[1], layers(graph, "Add")[-1]]
    np.testing.assert_allclose(
        logits_of(to_fp16(graph, readers), pixels), logits_of(graph, pixels), atol=0.01
    )


@pytest.mark.parametrize(
    ("total", "above", "expected"),
    [(20, 0, [1, 2, 4, 8, 10]), (20, 3, [4, 5, 7, 10]), (20, 10, []), (2, 0, [1]), (1, 0, [])],
)
def test_counts_double_up_to_half(total: int, above: int, expected: list[int]) -> None:
    assert list(counts(total, above=above)) == expected


def test_the_manifest_lists_what_is_float32(pixels: Pixels) -> None:
    samples: list[Sample] = [(Image.fromarray(image), 0) for image in pixels]
    network = Network(
        model="chain",
        data="noise",
        weights="trained",
        module=cancelling(),
        labels=tuple("abcdefghij"),
        preprocess=Preprocess(resize=SIDE, crop=SIDE),
        source=Source(origin="this test"),
        calibration=samples[:32],
        held_out=samples[32:],
        labelled=False,
    )
    graphs = Graphs(network, max_batch=8, max_drop=None, weight_bits=7)
    proven = graphs.proven("fp16")
    assert len(proven.artifact.fp32_layers) == 1
    assert proven.artifact.parity is not None
    assert proven.artifact.parity.top1_agreement >= 0.99
