from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from core.errors import UserError
from export.to_onnx import to_onnx
from models.classifier import Classifier
from models.registry import build_model, find_model
from models.resnet_tweaks import Bottleneck, ResNet50, SqueezeExcite, kaiming_

# Exact counts with 1,000 classes, at 224x224.
COUNTS = {
    # name: parameters, M MACs
    "resnet50_a": (25_557_032, "3857.973"),
    "resnet50_b": (25_557_032, "4089.184"),
    "resnet50_c": (25_576_264, "4328.825"),
    "resnet50_d": (25_576_264, "4328.825"),
    "se_resnet50": (28_088_024, "4091.699"),
}
OURS_AND_THEIRS = [
    ("resnet50_b", lambda: torchvision.models.resnet50(weights=None)),
    ("resnet50_c", lambda: timm.create_model("resnet50c")),
    ("resnet50_d", lambda: timm.create_model("resnet50d")),
    ("se_resnet50", lambda: timm.create_model("seresnet50")),
]


def count(name: str) -> tuple[int, int]:
    """Returns the parameters and the MACs at 224x224."""
    with torch.device("meta"), FlopCounterMode(display=False) as flops:
        network = build_model(name).eval()
        network(torch.zeros(1, 3, 224, 224))
    return sum(p.numel() for p in network.parameters()), flops.get_total_flops() // 2


def randomise(network: nn.Module) -> nn.Module:
    """Gives every batch norm statistics and weights that matter, and returns the network."""
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.2)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            nn.init.normal_(layer.running_mean, std=0.2)
            nn.init.uniform_(layer.running_var, 0.5, 1.5)
    return network


@pytest.mark.parametrize("name", COUNTS)
def test_counts_are_exact(name: str) -> None:
    parameters, macs = count(name)
    assert (parameters, f"{macs / 1e6:.3f}") == COUNTS[name]
    assert find_model(name).native_size == 224


def test_what_each_tweak_costs() -> None:
    b, c, d = count("resnet50_b"), count("resnet50_c"), count("resnet50_d")
    assert c[0] - b[0] == 19_232
    assert f"{(c[1] - b[1]) / 1e6:.1f}" == "239.6"
    assert d == c


@pytest.mark.parametrize("size", [64, 75])  # 75: stages of 19, 10, 5 and 3, so odd shortcuts too
@pytest.mark.parametrize(("name", "build"), OURS_AND_THEIRS)
def test_equals_the_reference_with_its_weights(
    name: str, build: Callable[[], nn.Module], size: int
) -> None:
    torch.manual_seed(0)
    theirs = randomise(build()).double().eval()
    ours = build_model(name).double().eval()
    # Both declare their layers in the order they run, branch before shortcut.
    state = zip(ours.state_dict(), theirs.state_dict().values(), strict=True)
    ours.load_state_dict(dict(state))
    images = torch.randn(2, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        expected, actual = theirs(images), ours(images)
    assert expected.std() > 0.1
    # In float64, so that only rounding is forgiven.
    torch.testing.assert_close(actual, expected, rtol=1e-9, atol=1e-9 * expected.std().item())


def test_a_strides_in_the_first_1x1_and_b_in_the_3x3() -> None:
    for name, expected in (("resnet50_a", (1, 2)), ("resnet50_b", (3, 1))):
        network = build_model(name)
        strided = [
            layer
            for block in network.get_submodule("blocks").children()
            for layer in block.get_submodule("branch").modules()
            if isinstance(layer, nn.Conv2d) and layer.stride == (2, 2)
        ]
        kernel, padding = expected[0], expected[0] // 2
        assert [layer.kernel_size for layer in strided] == [(kernel, kernel)] * 3
        assert [layer.padding for layer in strided] == [(padding, padding)] * 3


@pytest.mark.parametrize("size", [1, 7, 8])
def test_pooled_shortcut_sees_every_pixel_of_an_odd_size(size: int) -> None:
    block = Bottleneck(4, 2, 2, pool_shortcut=True).eval()
    images = torch.randn(1, 4, size, size, requires_grad=True)
    shortcut = block.shortcut(images)
    assert shortcut.shape == block(images).shape == (1, 8, (size + 1) // 2, (size + 1) // 2)
    shortcut.abs().sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).all()
    # The mean of a constant is the constant in the corner, too: no zeros are averaged in.
    pool = block.shortcut.get_submodule("0")
    assert (pool(torch.ones(1, 4, size, size)) == 1).all()


def test_convolutions_start_from_kaiming_by_fan_out() -> None:
    torch.manual_seed(0)
    network = ResNet50(2, block=functools.partial(Bottleneck, reduction=16))
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and layer.weight.numel() > 5_000:
            kernel = layer.kernel_size[0]
            expected = (2 / (kernel**2 * layer.out_channels)) ** 0.5
            assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            assert (layer.bias == 0).all()
    grouped = nn.Conv2d(256, 256, 3, groups=256)
    kaiming_(grouped)
    assert grouped.weight.std().item() == pytest.approx((2 / 9) ** 0.5, rel=0.1)


def test_squeeze_and_excite_gates_channels_by_their_means() -> None:
    gate = SqueezeExcite(8, 4)
    images = torch.randn(2, 8, 5, 5)
    first, second = (layer for layer in gate.gate if isinstance(layer, nn.Conv2d))
    squeezed = torch.relu(images.mean((2, 3)) @ first.weight[:, :, 0, 0].T + first.bias)
    gates = torch.sigmoid(squeezed @ second.weight[:, :, 0, 0].T + second.bias)
    torch.testing.assert_close(gate(images), images * gates[:, :, None, None])


@pytest.mark.parametrize("reduction", [0, -1, 3, 16])
def test_impossible_reduction(reduction: int) -> None:
    message = rf"reduction is {reduction}: it must be at least 1 and divide 8"
    with pytest.raises(UserError, match=message):
        SqueezeExcite(8, reduction)
    assert issubclass(UserError, ValueError)


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTS)
def test_exports_without_shape_arithmetic(name: str) -> None:
    network = Classifier(build_model(name, num_classes=2))
    ops = {node.op_type for node in to_onnx(network, size=64).graph.node}
    assert "BatchNormalization" not in ops
