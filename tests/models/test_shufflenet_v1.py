from __future__ import annotations

import functools

import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from core.errors import UserError
from export.free_batch import shape_nodes
from export.to_onnx import to_onnx
from models.classifier import Classifier
from models.registry import build_model, list_models
from models.shufflenet_v1 import ShuffleNetV1, ShuffleUnit, channel_shuffle

# Exact counts: channels of the stem, parameters, millions of MACs with and without the last layer.
# The authors' own networks have 1,000 parameters less: their last layer has no bias.
EXACT = {
    "shufflenet_v1_g1": (24, 1_531_936, "143.079", "142.503"),
    "shufflenet_v1_g2": (24, 1_733_848, "140.837", "140.037"),
    "shufflenet_v1_g3": (24, 1_864_728 + 1000, "137.461", "136.501"),
    "shufflenet_v1_g4": (24, 1_968_344, "134.340", "133.252"),
    "shufflenet_v1_g8": (24, 2_433_768 + 1000, "138.366", "136.830"),
    "shufflenet_v1_g3_x0_5": (12, 717_324 + 1000, "37.590", "37.110"),
    "shufflenet_v1_g3_x1_5": (24, 3_441_168 + 1000, "292.444", "291.004"),
    "shufflenet_v1_g3_x2_0": (48, 5_449_776 + 1000, "524.045", "522.125"),
}
# The authors' README, for the networks that EXACT has not: stem, millions of parameters and MACs.
ROUNDED = {
    "shufflenet_v1_g8_x0_5": (16, 1.0, 40),
    "shufflenet_v1_g8_x1_5": (24, 4.3, 290),
    "shufflenet_v1_g8_x2_0": (48, 6.5, 522),
}
# The paper's table 1, "complexity" (without the last layer), and tables 2 and 5 (with it).
PRINTED_WITHOUT_HEAD = {1: 143, 2: 140, 3: 137, 4: 133, 8: 137}
PRINTED = {"shufflenet_v1_g3_x0_5": 38, "shufflenet_v1_g3_x1_5": 292, "shufflenet_v1_g3_x2_0": 524}


def on_meta(name: str) -> ShuffleNetV1:
    with torch.device("meta"):
        network = build_model(name)
    assert isinstance(network, ShuffleNetV1)
    return network.eval()


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


@functools.cache
def macs(name: str) -> int:
    """Returns the multiply-accumulates of one 224x224 image, counted by torch."""
    network = on_meta(name)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, 224, 224, device="meta"))
    return counter.get_total_flops() // 2


def lively(unit: ShuffleUnit) -> ShuffleUnit:
    """Returns the unit in evaluation mode, with weights and norms that hide nothing."""
    for layer in unit.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    return unit.eval()


def test_eleven_networks_are_registered() -> None:
    names = {name for name in list_models() if name.startswith("shufflenet_v1")}
    assert names == EXACT.keys() | ROUNDED.keys()


@pytest.mark.parametrize("name", EXACT)
def test_parameters_and_macs_are_exact(name: str) -> None:
    stem, count, with_head, without_head = EXACT[name]
    network = on_meta(name)
    assert network.stem[0].out_channels == stem
    assert parameters(network) == count
    assert f"{macs(name) / 1e6:.3f}" == with_head
    assert f"{(macs(name) - network.head.weight.numel()) / 1e6:.3f}" == without_head


@pytest.mark.parametrize("name", ROUNDED)
def test_eight_groups_are_those_of_the_authors(name: str) -> None:
    stem, count, millions = ROUNDED[name]
    network = on_meta(name)
    assert network.stem[0].out_channels == stem
    assert round((parameters(network) - 1000) / 1e6, 1) == count
    assert round(macs(name) / 1e6) == millions


@pytest.mark.parametrize("groups", PRINTED_WITHOUT_HEAD)
def test_macs_are_those_of_table_1(groups: int) -> None:
    name = f"shufflenet_v1_g{groups}"
    millions = (macs(name) - on_meta(name).head.weight.numel()) / 1e6
    assert round(millions) == PRINTED_WITHOUT_HEAD[groups]


@pytest.mark.parametrize("name", PRINTED)
def test_macs_are_those_of_tables_2_and_5(name: str) -> None:
    assert round(macs(name) / 1e6) == PRINTED[name]


def test_shuffle_has_the_order_of_the_paper() -> None:
    shuffled = channel_shuffle(torch.arange(12.0).view(1, 12, 1, 1), 3)
    assert shuffled.flatten().tolist() == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]


def test_shuffle_of_one_group_is_the_identity() -> None:
    channels = torch.arange(12.0).view(1, 12, 1, 1)
    assert channel_shuffle(channels, 1) is channels


def test_only_the_very_first_pointwise_convolution_has_no_groups() -> None:
    units = ShuffleNetV1(3).units
    assert [unit.conv1.groups for unit in units] == [1] + [3] * 15
    assert [unit.conv3.groups for unit in units] == [3] * 16


def test_stages_and_bottlenecks() -> None:
    units = ShuffleNetV1(3).units
    assert [unit.stride for unit in units] == [2, 1, 1, 1, 2, *[1] * 7, 2, 1, 1, 1]
    assert [unit.bn1.num_features for unit in units] == [60] * 4 + [120] * 8 + [240] * 4
    # At stride 2 the branch makes what the pooled input lacks.
    assert [units[i].bn3.num_features for i in (0, 4, 12)] == [240 - 24, 480 - 240, 960 - 480]


def test_unit_of_stride_2_joins_the_pooled_input_and_then_the_branch() -> None:
    torch.manual_seed(0)
    unit = lively(ShuffleUnit(24, 60, 2, 3, first=False))
    images = torch.rand(2, 24, 7, 7)
    with torch.no_grad():
        joined = unit(images)
        assert joined.shape == (2, 60, 4, 4)
        pooled = functional.avg_pool2d(images, 3, stride=2, padding=1)
        torch.testing.assert_close(joined[:, :24], pooled)
        assert (joined[:, 24:] == 0).any(), "a ReLU ends the branch"
        assert (joined[:, 24:] > 0).any()


def test_pool_counts_its_padding() -> None:
    unit = lively(ShuffleUnit(24, 60, 2, 3, first=False))
    pooled = unit(torch.ones(1, 24, 5, 5))[0, 0]
    # 3x3, stride 2, padding 1, over ones: a corner sees 4 of 9, an edge 6, the inside 9.
    expected = torch.tensor([[4.0, 6, 4], [6, 9, 6], [4, 6, 4]]) / 9
    torch.testing.assert_close(pooled, expected)


def test_negative_values_pass_the_depthwise_convolution() -> None:
    unit = ShuffleUnit(4, 4, 1, 1, first=False).eval()
    # One channel in the bottleneck: 1 -> conv1 -> 1 -> depthwise -> -1 -> conv3 -> 1.
    for conv, centre in ((unit.conv1, 0.25), (unit.conv2, -1), (unit.conv3, -1)):
        nn.init.zeros_(conv.weight)
        nn.init.constant_(conv.weight[:, :, conv.padding[0], conv.padding[1]], centre)
    ones = torch.ones(1, 4, 3, 3)
    with torch.no_grad():
        torch.testing.assert_close(unit(ones), ones + 1, rtol=1e-4, atol=0)


def test_shuffle_follows_the_first_pointwise_convolution() -> None:
    torch.manual_seed(0)
    unit = lively(ShuffleUnit(24, 24, 1, 3, first=False))
    images = torch.rand(2, 24, 5, 5)
    order = [0, 2, 4, 1, 3, 5]  # six channels of the bottleneck, two in each of three groups
    with torch.no_grad():
        branch = torch.relu(unit.bn1(unit.conv1(images)))[:, order]
        branch = unit.bn3(unit.conv3(unit.bn2(unit.conv2(branch))))
        torch.testing.assert_close(unit(images), torch.relu(images + branch))


def test_starts_as_the_authors_say() -> None:
    torch.manual_seed(0)
    network = ShuffleNetV1(3)
    last = network.units[-1]
    assert network.stem[0].weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert last.conv1.weight.std().item() == pytest.approx(3 / 960, rel=0.1)
    assert last.conv2.weight.std().item() == pytest.approx(1, rel=0.1)
    assert network.head.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert not network.head.bias.any()
    torch.testing.assert_close(last.bn3.bias, torch.full((960,), 1e-4))


def test_units_export_without_shape_arithmetic() -> None:
    torch.manual_seed(0)
    units = [ShuffleUnit(24, 60, 2, 3, first=True), ShuffleUnit(60, 60, 1, 3, first=False)]
    stem, head = nn.Conv2d(3, 24, 1), (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    network = Classifier(nn.Sequential(stem, nn.ReLU(), *map(lively, units), *head)).eval()
    model = to_onnx(network, size=7)
    assert shape_nodes(model) == 0
    operators = [node.op_type for node in model.graph.node]
    # For each shuffle two and one; the Reshape of the head, the Transpose from NHWC to NCHW.
    assert operators.count("Reshape") == 2 * 2 + 1
    assert operators.count("Transpose") == 2 + 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    for batch in (1, 5):
        pixels = torch.randint(0, 256, (batch, 7, 7, 3), dtype=torch.uint8)
        (logits,) = session.run(None, {"pixels": pixels.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), network(pixels))


def test_groups_are_those_of_table_1() -> None:
    with pytest.raises(UserError, match=r"groups is 5: it must be one of \[1, 2, 3, 4, 8\]"):
        ShuffleNetV1(5)


@pytest.mark.parametrize(
    ("groups", "width", "allowed"),
    [
        (3, 0.25, r"\[0.5, 1.0, 1.5, 2.0\]"),
        (2, 0.5, r"\[1.0, 2.0\]"),
        (4, 1.5, r"\[1.0, 2.0\]"),
    ],
)
def test_width_must_divide_into_the_groups(groups: int, width: float, allowed: str) -> None:
    message = f"width is {width}: with {groups} groups it must be one of {allowed}"
    with pytest.raises(UserError, match=message):
        ShuffleNetV1(groups, width)


@pytest.mark.parametrize(("inputs", "outputs"), [(12, 192), (16, 200)])
def test_unit_must_divide_into_the_groups(inputs: int, outputs: int) -> None:
    message = (
        f"a unit from {inputs} to {outputs} channels: with 8 groups they must be "
        "multiples of 8 and 32"
    )
    with pytest.raises(UserError, match=message):
        ShuffleUnit(inputs, outputs, 2, 8, first=False)
