from __future__ import annotations

import dataclasses
import functools
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx.numpy_helper import to_array
from onnxruntime.quantization import qdq_quantizer
from torch import nn

from artifact.artifact import Artifact
from artifact.gates import DEFAULTS, limits_for
from artifact.golden import relative_error
from artifact.records import Limits, Logits, Quantization, WeightBits
from core.preprocess import Pixels
from export.build import build_artifacts
from export.network import load_network
from export.quantization import int8, qdq
from export.quantization.calibration import (
    BINS,
    entropy_range,
    histogram,
    measure_ranges,
    percentile_range,
)
from export.quantization.gptq import Moments, Rounding, input_moments, round_rows, weighted_layers
from export.quantization.int8 import Score, fewest, int8_candidates
from export.quantization.qdq import prepare, to_int8, with_ranges
from export.quantization.sensitivity import GraphCandidate, layer_errors
from export.to_onnx import to_onnx
from models.classifier import Classifier

SIDE = 16
LIMITS = DEFAULTS["int8"]
# Nothing to be lost or kept, but answers to choose by.
LOOSE = Limits(top1_agreement=0.0, top1_drop=None, golden_error=1.0)


class Small(nn.Module):
    """Every kind of layer the road knows: plain, depthwise, pointwise, residual, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU6())
        self.depthwise = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1, groups=16), nn.ReLU6())
        self.pointwise = nn.Conv2d(16, 16, 1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        images = self.stem(images)
        logits: torch.Tensor = self.head(images + self.pointwise(self.depthwise(images)))
        return logits


@functools.cache
def small(*, ruined: bool = False) -> Any:
    """Returns the float32 graph of a small network.

    Ruined, the depthwise layer has one weight per channel on a tap that only ever sees padding:
    nothing in float32, and a scale that rounds all its other weights to zero in int8.
    """
    torch.manual_seed(0)
    network = Small()
    if ruined:
        wide = nn.Conv2d(16, 16, 17, padding=8, groups=16)
        with torch.no_grad():
            wide.weight.zero_()
            wide.weight[:, :, 7:10, 7:10] = network.depthwise[0].weight
            wide.weight[:, :, 0, 0] = 1e4
        network.depthwise[0] = wide
    return to_onnx(Classifier(network), size=SIDE)


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    """Returns uint8 (64, 16, 16, 3): smooth, so that neighbours resemble each other."""
    coarse = np.random.default_rng(0).integers(0, 256, (64, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(4, axis=1).repeat(4, axis=2)


@pytest.fixture(scope="module")
def prepared() -> Any:
    """Returns the prepared graph of the small network."""
    return prepare(small())


def logits_of(graph: Any, pixels: Pixels, *, optimized: bool = True) -> Logits:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(graph.SerializeToString(), options)
    logits: Logits = session.run(None, {"pixels": pixels})[0]
    return logits


def layer(graph: Any, op: str, index: int) -> str:
    """Returns the name of the ``index``th node that is an ``op``."""
    return str([node for node in graph.graph.node if node.op_type == op][index].name)


def first(*args: Any, **options: Any) -> tuple[GraphCandidate, Quantization]:
    """Returns the first candidate, and how it was made."""
    candidate = next(int8_candidates(*args, **options))
    assert candidate.quantization is not None
    return candidate, candidate.quantization


@pytest.mark.parametrize(("bits", "most"), [(7, 64), (8, 127)])
def test_weights_take_all_levels_of_their_bits(bits: WeightBits, most: int, pixels: Pixels) -> None:
    (graph, *_), made = first(small(), pixels, None, LIMITS, weight_bits=bits)
    weights = [
        to_array(each)
        for each in graph.graph.initializer
        if each.data_type == onnx.TensorProto.INT8
    ]
    assert made.weight_bits == bits
    assert {np.abs(each).max() for each in weights if each.ndim > 1} == {most}


def test_the_ruined_layer_alone_is_left_in_float32(pixels: Pixels) -> None:
    model = small(ruined=True)
    ruined = layer(prepare(model), "Conv", 1)
    (graph, fp32_layers, *_), made = first(model, pixels, None, LIMITS)
    assert made.top1[made.calibration] < 0.95  # what all layers in int8 would be
    assert fp32_layers == (ruined,)
    constants = {tensor.name for tensor in graph.graph.initializer}
    (node,) = (node for node in graph.graph.node if node.name == ruined)
    assert node.input[1] in constants  # the weights themselves, not a DequantizeLinear of them
    agrees = logits_of(graph, pixels).argmax(axis=1) == logits_of(model, pixels).argmax(axis=1)
    assert agrees.mean() >= 0.975


def test_asked_for_more_ever_more_layers_are_left_in_float32(pixels: Pixels) -> None:
    candidates = list(int8_candidates(small(), pixels, None, LIMITS))
    left = [len(candidate.fp32_layers) for candidate in candidates]
    assert left == [0, 1, 2, 3]  # of 6: Mul and Add of the pixels are never rounded
    for fewer, more in itertools.pairwise(candidates):
        assert more.fp32_layers[: len(fewer.fp32_layers)] == fewer.fp32_layers


@pytest.mark.parametrize("symmetric", [False, True])
def test_weights_and_biases_are_those_that_the_quantizer_makes_per_channel(
    prepared: Any, pixels: Pixels, monkeypatch: pytest.MonkeyPatch, symmetric: bool
) -> None:
    ranges = measure_ranges(prepared, pixels)["MinMax"]
    found = to_int8(prepared, ranges, symmetric=symmetric)

    class PerChannel(qdq_quantizer.QDQQuantizer):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "per_channel": True})

    monkeypatch.setattr(qdq_quantizer, "QDQQuantizer", PerChannel)
    monkeypatch.setattr(qdq, "_round_weights", lambda *_: None)
    monkeypatch.setattr(qdq, "_round_biases", lambda *_: None)
    check_same(found, to_int8(prepared, ranges, symmetric=symmetric))


def check_same(found: Any, expected: Any) -> None:
    assert [n.SerializeToString() for n in found.graph.node] == [
        n.SerializeToString() for n in expected.graph.node
    ]
    tensors = {tensor.name: to_array(tensor) for tensor in found.graph.initializer}
    assert len(tensors) == len(expected.graph.initializer)
    for tensor in expected.graph.initializer:
        values = to_array(tensor)
        assert tensors[tensor.name].dtype == values.dtype, tensor.name
        np.testing.assert_array_equal(tensors[tensor.name], values, tensor.name)


@pytest.mark.parametrize("symmetric", [False, True])
def test_other_ranges_give_the_graph_that_the_quantizer_makes_of_them(
    prepared: Any, pixels: Pixels, symmetric: bool
) -> None:
    ranges = measure_ranges(prepared, pixels)
    first = to_int8(prepared, ranges["MinMax"], symmetric=symmetric)
    for method in ("Percentile", "Entropy"):
        expected = to_int8(prepared, ranges[method], symmetric=symmetric)
        found = with_ranges(first, prepared, ranges[method])
        check_same(found, expected)
        tensors = {tensor.name: to_array(tensor) for tensor in found.graph.initializer}
        assert any(
            not np.array_equal(tensors[t.name], to_array(t)) for t in first.graph.initializer
        )


def test_random_weights_have_nothing_to_choose_by(pixels: Pixels) -> None:
    limits = limits_for("int8", weights="random", labelled=False)
    candidate, made = first(small(ruined=True), pixels, None, limits)
    assert candidate.fp32_layers == ()
    assert made.top1.keys() == {"MinMax"}


@pytest.mark.parametrize("best", ["MinMax", "Percentile", "Entropy"])
def test_the_method_is_the_one_that_measures_best(
    pixels: Pixels, monkeypatch: pytest.MonkeyPatch, best: str
) -> None:
    def spoiled(*args: Any) -> Any:
        ranges = measure_ranges(*args)
        for method in ranges:
            if method != best:
                ranges[method] = dict.fromkeys(ranges[method], (-100000.0, 100000.0))
        return ranges

    monkeypatch.setattr(int8, "measure_ranges", spoiled)
    _, made = first(small(), pixels, None, LOOSE)
    assert made.calibration == best
    assert made.top1[made.calibration] == max(made.top1.values())
    assert sorted(made.top1.values())[-1] > sorted(made.top1.values())[-2]
    assert (made.images, made.labelled) == (64, False)


def test_labels_decide_where_there_are_some(pixels: Pixels) -> None:
    model = small()
    labels = np.tile(np.arange(10) == 3, (len(pixels), 1))
    share = float((logits_of(model, pixels).argmax(axis=1) == 3).mean())
    _, made = first(model, pixels, labels, LOOSE)
    assert made.labelled
    assert made.top1[made.calibration] == pytest.approx(share, abs=0.1)


@pytest.mark.parametrize(
    ("agreement", "drop", "max_drop", "holds"),
    [
        (0.98, 0.0, None, True),  # 2 of 100: less than half of 5
        (0.97, 0.0, None, False),
        (1.0, 0.01, 0.01, True),  # one image, though half a point is allowed
        (1.0, 0.02, 0.01, False),
        (1.0, 0.02, 0.05, True),
        (1.0, 0.01, 0.0, False),  # nothing may be lost
        (1.0, -0.01, 0.0, True),
    ],
)
def test_half_of_a_limit_is_kept(
    agreement: float, drop: float, max_drop: float | None, holds: bool
) -> None:
    score = Score(top1=0.9 - drop, agreement=agreement, closeness=0.0, drop=drop, image=0.01)
    assert score.holds(dataclasses.replace(LIMITS, top1_drop=max_drop)) is holds


@pytest.mark.parametrize("needed", range(1, 13))
def test_no_more_layers_than_needed(needed: int) -> None:
    tried: list[int] = []

    def holds(count: int) -> bool:
        tried.append(count)
        return count >= needed

    assert fewest(10, holds) == min(needed, 10)
    assert min(needed, 10) in tried
    assert len(tried) == len(set(tried)) <= 8


def test_ranges_cover_or_leave_out_the_outlier() -> None:
    values = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
    values[0] = 50
    ends = (float(values.min()), 50.0)
    counts = histogram(values, ends)
    assert (len(counts), counts.sum(), counts[-1]) == (BINS, len(values), 1)
    for low, high in (percentile_range(counts, ends), entropy_range(counts, ends)):
        assert ends[0] <= low <= -2
        assert 3 < high < 40


def test_a_constant_activation_has_a_range() -> None:
    counts = histogram(np.full(10, 2.5, dtype=np.float32), (2.5, 2.5))
    assert percentile_range(counts, (2.5, 2.5)) == entropy_range(counts, (2.5, 2.5)) == (2.5, 2.5)


def test_minmax_is_what_the_images_reach(prepared: Any, pixels: Pixels) -> None:
    ranges = measure_ranges(prepared, pixels)["MinMax"]
    logits = logits_of(prepared, pixels)
    assert ranges["logits"] == pytest.approx((logits.min(), logits.max()), rel=1e-5)
    for node in prepared.graph.node:
        if node.op_type == "Clip":
            assert ranges[node.input[0]] == ranges[node.output[0]]
            assert 0 <= ranges[node.output[0]][0] < ranges[node.output[0]][1] <= 6


def test_an_error_is_the_layers_own(pixels: Pixels) -> None:
    errors = []
    for ruined in (False, True):
        graph = prepare(small(ruined=ruined))
        quantized = to_int8(graph, measure_ranges(graph, pixels)["MinMax"])
        found = layer_errors(graph, quantized, pixels)
        errors.append([found[layer(graph, "Conv", index)] for index in range(3)])
        assert {layer(graph, "Add", 1), layer(graph, "Gemm", 0)} < found.keys()
    (stem, depthwise, pointwise), (same, ruined_error, fed_as_before) = errors
    assert max(stem, depthwise, pointwise) < 0.02 < 0.5 < ruined_error
    assert (same, fed_as_before) == pytest.approx((stem, pointwise), rel=0.1)


class Squaring(nn.Module):
    """A convolution of squares: an activation of 65025 beside others of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.conv(images * images))
        return logits


def test_one_image_of_huge_activations_does_not_hide_that_all_others_are_lost() -> None:
    torch.manual_seed(0)
    plain = Classifier(Squaring(), mean=(0, 0, 0), std=(1 / 255,) * 3)
    graph = prepare(to_onnx(plain, size=SIDE))
    pixels = np.ones((8, SIDE, SIDE, 3), dtype=np.uint8)
    pixels[3] = 255
    quantized = to_int8(graph, measure_ranges(graph, pixels)["MinMax"])
    error = layer_errors(graph, quantized, pixels)[layer(graph, "Conv", 0)]
    assert 0.5 < error <= 7 / 8 + 1e-3


class Ramp(nn.Module):
    """Adds a row of constants to the images, as positional encodings do."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images + torch.linspace(0, 1, SIDE, device=images.device).reshape(1, 1, 1, SIDE)


def test_only_the_constants_of_the_normalisation_are_widened(pixels: Pixels) -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(Ramp(), nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4 * SIDE**2, 3))
    graph = prepare(to_onnx(Classifier(layers), size=SIDE))
    quantized = to_int8(graph, measure_ranges(graph, pixels)["MinMax"])
    expected = logits_of(graph, pixels)
    assert relative_error(logits_of(quantized, pixels), expected) < 0.1


class Halves(Squaring):
    """The same, of the two halves of each image beside each other, as attention has its windows."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        count, _, side, width = images.shape
        halves = images.reshape(count, 3, 2, side // 2, width).transpose(1, 2).flatten(0, 1)
        squares = self.conv(halves * halves).unflatten(0, (count, 2)).transpose(1, 2)
        logits: torch.Tensor = self.head(squares.reshape(count, 4, side, width))
        return logits


def test_an_error_is_that_of_whole_images_also_where_their_parts_are_apart(pixels: Pixels) -> None:
    errors = []
    for kind in (Squaring, Halves):
        torch.manual_seed(0)
        graph = prepare(to_onnx(Classifier(kind()), size=SIDE))
        quantized = to_int8(graph, measure_ranges(graph, pixels)["MinMax"])
        errors.append(layer_errors(graph, quantized, pixels)[layer(graph, "Conv", 0)])
    assert 0 < errors[0] < 0.1
    assert errors[1] == pytest.approx(errors[0], rel=1e-3)


def test_pixels_are_normalised_in_float32(prepared: Any, pixels: Pixels) -> None:
    quantized = to_int8(prepared, measure_ranges(prepared, pixels)["MinMax"])
    makers = {name: node.op_type for node in quantized.graph.node for name in node.output}
    mul, add = (layer(quantized, op, 0) for op in ("Mul", "Add"))
    for node in quantized.graph.node:
        if node.name in (mul, add):
            assert "DequantizeLinear" not in [makers.get(name) for name in node.input]
            shapes = [t.dims for t in quantized.graph.initializer if t.name in node.input]
            assert shapes == [[1, 3, 1, SIDE]]  # a row at once, not a pixel
    (residual,) = (n for n in quantized.graph.node if n.name == layer(quantized, "Add", 1))
    assert [makers[name] for name in residual.input] == ["DequantizeLinear"] * 2


def test_the_runtime_does_not_round_what_was_left_in_float32(pixels: Pixels) -> None:
    graph = prepare(small(ruined=True))
    left = layer(graph, "Conv", 1)
    quantized = to_int8(graph, measure_ranges(graph, pixels)["MinMax"], [left])
    as_written = logits_of(quantized, pixels, optimized=False)
    np.testing.assert_allclose(logits_of(quantized, pixels), as_written, atol=0.02)
    assert np.abs(as_written - logits_of(graph, pixels)).max() < 0.1


def test_logits_are_not_rounded(prepared: Any, pixels: Pixels) -> None:
    quantized = to_int8(prepared, measure_ranges(prepared, pixels)["MinMax"])
    (maker,) = (node for node in quantized.graph.node if "logits" in node.output)
    assert maker.op_type == "Gemm"


def test_rounding_for_the_inputs_beats_the_nearest(prepared: Any, pixels: Pixels) -> None:
    random = np.random.default_rng(0)
    inputs = random.normal(size=(4000, 8)) @ random.normal(size=(8, 24))  # 24 values, 8 causes
    covariance = np.cov(inputs.T)[None].astype(np.float32)
    rows = random.uniform(-60, 60, (1, 16, 24))
    careful = round_rows(rows, Moments(np.zeros((1, 24)), covariance), 64)
    nearest = round_rows(rows, Moments(np.zeros((1, 24)), None), 64)
    np.testing.assert_array_equal(nearest, np.round(rows))
    noise = [float((((rows - levels)[0] @ inputs.T) ** 2).mean()) for levels in (careful, nearest)]
    assert noise[0] < noise[1] / 3
    assert (careful == np.round(careful)).all()
    assert np.abs(careful).max() <= 64


def test_rounding_brings_the_graph_closer_to_float32(prepared: Any, pixels: Pixels) -> None:
    quantized = to_int8(prepared, measure_ranges(prepared, pixels)["MinMax"])
    exact = logits_of(prepared, pixels)
    before = np.abs(logits_of(quantized, pixels) - exact).mean()
    Rounding(prepared, pixels[:32], limit=64).apply(quantized)
    assert np.abs(logits_of(quantized, pixels[32:]) - exact[32:]).mean() < before


def test_the_bias_makes_up_for_what_rounding_does_to_the_mean(
    prepared: Any, pixels: Pixels
) -> None:
    quantized = to_int8(prepared, measure_ranges(prepared, pixels)["MinMax"])
    Rounding(prepared, pixels, limit=64).apply(quantized)
    moments = input_moments(prepared, pixels)
    exact = {tensor.name: to_array(tensor) for tensor in prepared.graph.initializer}
    whole = {tensor.name: to_array(tensor) for tensor in quantized.graph.initializer}
    makers = {node.output[0]: node for node in quantized.graph.node}
    layers = weighted_layers(prepared)
    assert [layer.groups for layer in layers] == [1, 16, 1, 1]
    for item in layers:
        (node,) = (node for node in quantized.graph.node if node.name == item.name)
        (levels, scale), (steps, step) = (
            [whole[name] for name in makers[source].input[:2]] for source in node.input[1:]
        )
        weight = exact[item.weight].reshape(len(levels), -1)
        rounded = levels.reshape(weight.shape) * scale.reshape(-1, 1)
        mean = moments[item.name].mean.repeat(len(levels) // item.groups, axis=0)
        lost = ((weight - rounded) * mean).sum(axis=1) + exact[item.bias] - steps * step
        assert (np.abs(lost) <= 0.51 * step).all()  # half a step: the rounding of the bias itself


def test_a_network_without_biases_is_rounded_to_the_nearest(pixels: Pixels) -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 10, 3, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Identity()
    )
    candidate = next(int8_candidates(to_onnx(Classifier(network), size=SIDE), pixels, None, LOOSE))
    assert "DequantizeLinear" in [node.op_type for node in candidate.model.graph.node]


def test_symmetric_is_what_tensorrt_takes(pixels: Pixels) -> None:
    model = small()
    candidate, _ = first(model, pixels, None, LIMITS, symmetric=True)
    graph = candidate.model.graph
    constants = {tensor.name: to_array(tensor) for tensor in graph.initializer}
    pairs = [n for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert pairs
    for node in pairs:
        assert constants[node.input[2]].dtype == np.int8
        assert not constants[node.input[2]].any()
    makers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm"):
            fed, weight = (makers[name] for name in node.input[:2])
            assert fed.op_type == weight.op_type == "DequantizeLinear"
            levels, scale = (constants[name] for name in weight.input[:2])
            assert np.abs(levels).max() > 64  # all 8 bits
            assert scale.shape == levels.shape[:1]
            assert constants[node.input[2]].dtype == np.float32
    agrees = logits_of(candidate.model, pixels).argmax(axis=1) == logits_of(model, pixels).argmax(
        axis=1
    )
    assert agrees.mean() >= 0.95


def test_moments_count_the_padding(pixels: Pixels) -> None:
    torch.manual_seed(0)
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    network = Classifier(nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), *pooled))
    graph = prepare(to_onnx(network, size=SIDE))
    white = np.full_like(pixels, 255)
    moments = input_moments(graph, white)[layer(graph, "Conv", 0)]
    value = (255 * network.scale + network.shift).expand(1, 3, SIDE, SIDE)
    expected = nn.functional.unfold(value, 3, stride=2, padding=1).mean(dim=(0, 2)).numpy()
    np.testing.assert_allclose(moments.mean[0], expected, atol=0.15)
    assert expected.max() - expected.min() > 0.3  # a corner sees padding more often


@pytest.mark.parametrize(
    ("wrong", "careful"), [(-0.05, True), (-2.0, False), (float("nan"), False)]
)
def test_moments_that_are_off_do_not_stop_an_export(wrong: float, careful: bool) -> None:
    random = np.random.default_rng(0)
    rows, values = random.normal(size=(1, 4, 24)), random.normal(size=(200, 24))
    covariance = np.cov(values, rowvar=False).astype(np.float32)[None] * 0.1 + 1.0
    covariance[0, 0, 0] += wrong - covariance[0, 0, 0]
    mean = np.zeros((1, 24))
    levels = round_rows(8 * rows, Moments(mean, covariance), 64)
    assert np.array_equal(levels, np.round(levels))
    assert np.abs(levels).max() <= 64
    nearest = round_rows(8 * rows, Moments(mean, None), 64)
    assert np.array_equal(levels, nearest) != careful


def test_the_manifest_says_how_it_came_to_int8(artifacts: dict[str, Artifact]) -> None:
    made = artifacts["onnx-int8"].quantization
    assert made is not None
    assert made.top1.keys() == {"MinMax", "Percentile", "Entropy"}
    assert made.top1[made.calibration] == max(made.top1.values())
    assert (made.images, made.labelled) == (128, True)
    names = {node.name for node in onnx.load(artifacts["onnx-int8"].model_file).graph.node}
    assert set(artifacts["onnx-int8"].fp32_layers) <= names
    assert artifacts["onnx-fp32"].quantization is None


@pytest.mark.slow
def test_lite0_with_its_real_weights_keeps_its_answers(here: Path) -> None:
    network = load_network("efficientnet_lite0", None, "imagenet")
    (outcome,) = build_artifacts(network, ["onnx-int8"])
    assert outcome.reason is None
    assert outcome.artifact is not None
    assert outcome.artifact.parity is not None
    assert outcome.artifact.parity.images == 64
    assert outcome.artifact.parity.top1_agreement >= 0.95
    made = outcome.artifact.quantization
    assert made is not None
    assert made.top1[made.calibration] >= 0.975
