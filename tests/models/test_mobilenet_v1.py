from __future__ import annotations

import functools

import pytest
import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from core.errors import UserError
from models.mobilenet_v1 import MobileNetV1
from models.registry import build_model, list_models

# Exact counts: parameters, then millions of MACs of an image of each size.
SIZES = (224, 192, 160, 128)
EXACT = {
    "mobilenet_v1": (4_231_976, ("568.740", "418.122", "290.675", "186.401")),
    "mobilenet_v1_x0_75": (2_585_560, ("325.400", "239.273", "166.397", "106.770")),
    "mobilenet_v1_x0_5": (1_331_592, ("149.497", "109.970", "76.525", "49.160")),
    "mobilenet_v1_x0_25": (470_072, ("41.030", "30.213", "21.059", "13.570")),
}
# The paper's tables 6, 7 and 10: name, image size, millions of MACs. Left out, as it was not
# rounded but cut: 290 for width 1 at 160 (290.7).
PRINTED_MACS = (
    ("mobilenet_v1", 224, 569),
    ("mobilenet_v1", 192, 418),
    ("mobilenet_v1", 128, 186),
    ("mobilenet_v1_x0_75", 224, 325),
    ("mobilenet_v1_x0_75", 192, 239),
    ("mobilenet_v1_x0_5", 224, 149),
    ("mobilenet_v1_x0_25", 224, 41),
)


@functools.cache
def macs(name: str, size: int) -> int:
    """Returns the multiply-accumulates of one image, counted by torch."""
    with torch.device("meta"):
        network, image = build_model(name).eval(), torch.zeros(1, 3, size, size)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        network(image)
    return counter.get_total_flops() // 2


def test_four_widths_are_registered() -> None:
    assert {name for name in list_models() if name.startswith("mobilenet_v1")} == set(EXACT)


@pytest.mark.parametrize("name", EXACT)
def test_parameters_and_macs_are_exact(name: str) -> None:
    parameters, millions = EXACT[name]
    with torch.device("meta"):
        network = build_model(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert tuple(f"{macs(name, size) / 1e6:.3f}" for size in SIZES) == millions


@pytest.mark.parametrize(("name", "size", "millions"), PRINTED_MACS)
def test_macs_are_those_of_the_paper(name: str, size: int, millions: int) -> None:
    assert round(macs(name, size) / 1e6) == millions


def test_equals_timm_but_for_its_relu6() -> None:
    torch.manual_seed(0)
    theirs = timm.create_model("mobilenetv1_100", act_layer=nn.ReLU)
    images = torch.randn(4, 3, 96, 96)
    for layer in theirs.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
            layer.momentum = None  # statistics of one pass, so that activations stay near 1
    with torch.no_grad():
        theirs(images)
        ours = MobileNetV1()
        state = zip(ours.state_dict(), theirs.state_dict().values(), strict=True)
        ours.load_state_dict(dict(state))
        expected = theirs.eval()(images)
        assert expected.std() > 1e-2
        torch.testing.assert_close(ours.eval()(images), expected, rtol=1e-5, atol=1e-5)


def test_activations_have_no_ceiling() -> None:
    network = MobileNetV1(0.25).eval()
    stem = network.features[0]
    nn.init.ones_(stem[0].weight)
    assert stem(torch.full((1, 3, 8, 8), 10.0)).max() > 6


def test_starts_from_a_truncated_normal() -> None:
    torch.manual_seed(0)
    network = MobileNetV1(0.5)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            assert layer.weight.abs().max() <= 0.18
    # A normal cut at two deviations keeps 0.88 of its deviation.
    assert network.head.weight.std().item() == pytest.approx(0.88 * 0.09, rel=0.01)
    assert not network.head.bias.any()


@pytest.mark.parametrize("width", [0, -0.5, 0.3])
def test_width_must_give_whole_channels(width: float) -> None:
    with pytest.raises(
        UserError, match=f"width is {width}: it must be a positive multiple of 1/32"
    ):
        MobileNetV1(width)
