from __future__ import annotations

import sys

import pytest
import torch

from core.errors import UserError
from models.registry import build_model, find_model
from models.weights import load_imagenet_weights


def test_whatever_timm_knows_goes_by_its_name() -> None:
    with torch.device("meta"):
        network = build_model("timm/mobilenetv4_conv_small", num_classes=3).eval()
        assert network(torch.zeros(1, 3, 96, 96)).shape == (1, 3)
    assert find_model("timm/mobilenetv4_conv_small").native_size == 224


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("mobilenetv4_conv_small", "mobilenet_v4"),
        ("tf_mobilenetv3_large_075", "mobilenet_v3"),
        ("mobilenetv2_100", "mobilenet_v2"),  # timm builds these in its file of EfficientNets
        ("efficientnet_b0.ra_in1k", "efficientnet"),
        ("resnet18", "resnet"),
        ("vit_tiny_patch16_224", "vision_transformer"),
    ],
)
def test_networks_of_timm_are_of_many_families(name: str, family: str) -> None:
    assert find_model(f"timm/{name}").family == family


def test_unknown_to_timm() -> None:
    with pytest.raises(UserError, match=r"unknown model 'timm/mobilenetv2_10': did you mean"):
        build_model("timm/mobilenetv2_10")
    with pytest.raises(UserError, match=r"unknown model 'timm/qqqqqqqq': none of \d+ is close"):
        build_model("timm/qqqqqqqq")


def test_without_timm_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UserError, match=r"timm is not installed .*; pip install \.\[timm\]"):
        build_model("timm/resnet18")


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("timm.create_model", unreachable)
    with pytest.raises(UserError, match=r"timm/resnet18: .* cannot be fetched \(no network\)"):
        load_imagenet_weights("timm/resnet18")


def test_a_network_nobody_published_weights_for() -> None:
    with pytest.raises(UserError, match="mobilenet_v2_x0_35: nobody published ImageNet weights"):
        load_imagenet_weights("mobilenet_v2_x0_35")
