from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from subprocess import CompletedProcess

import pytest
import torch
from torch import nn

from core.errors import UserError
from core.image_size import Size
from models import registry
from models.input_size import check_input_size


class Fussy(nn.Module):
    """Gives logits of images of the sizes it likes, and breaks in its own way at others."""

    def __init__(self, likes: Callable[[int], bool]) -> None:
        super().__init__()
        self._likes = likes

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        assert self._likes(images.shape[2])
        return images.mean(dim=(2, 3))


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Callable[[nn.Module], None]:
    """Returns a function that makes a network known as ``made``, of 224 pixels and 3 classes."""

    def add(network: nn.Module) -> None:
        entry = registry.find_model("resnet14")
        made = dataclasses.replace(entry, build=lambda _: network, native_size=224)
        monkeypatch.setitem(registry.NETWORKS, "made", made)

    return add


@pytest.mark.parametrize(
    ("likes", "sizes"),
    [
        (lambda side: side >= 33, "at least 33x33"),
        (lambda side: side == 224, "exactly 224x224"),
        (lambda side: side % 32 == 0 and side > 32, "a multiple of 32, at least 64x64"),
        (lambda side: side % 7 == 0, "a multiple of 7, at least 7x7"),
        (lambda side: side % 32 == 0 and side % 224 == 0, "a multiple of 224, at least 224x224"),
        (lambda side: side % 64 == 32, "32x32 and steps of 64 pixels more"),
    ],
)
def test_the_sizes_a_network_takes_are_found_and_named(
    register: Callable[[nn.Module], None], likes: Callable[[int], bool], sizes: str
) -> None:
    register(Fussy(likes))
    check_input_size("made", 224, classes=3)
    with pytest.raises(UserError, match=f"made cannot take 23x23 images: {sizes}$"):
        check_input_size("made", 224, 23, classes=3)


def test_networks_as_they_are(command: Callable[..., CompletedProcess[str]]) -> None:
    check_input_size("mobilenet_v3", 32)
    check_input_size("vgg16", 32)
    with pytest.raises(UserError, match="vgg16 cannot take 31x31 images: at least 32x32"):
        check_input_size("vgg16", 31)
    with pytest.raises(UserError, match="mobilenet_v3 cannot take 0x0 images: at least 1x1"):
        check_input_size("mobilenet_v3", 0)
    check_input_size("vgg16", (32, 64), (40, 33))
    with pytest.raises(UserError, match=r"vgg16 cannot take 64x31 .*; of square ones, at least 32"):
        check_input_size("vgg16", (64, 31))
    check_input_size("timm/vit_tiny_patch16_224", (32, 64), resized=True)
    with pytest.raises(
        UserError, match=r"take 224x112 images: Wrong image width! Expected 224 but got 112"
    ):
        check_input_size("torchvision/vit_b_16", (224, 112), resized=True)
    printed = command("models", "--input-sizes", "vgg16", "timm/vit_tiny_patch16_224").stdout
    assert printed == "vgg16: at least 32x32\ntimm/vit_tiny_patch16_224: exactly 224x224\n"


@pytest.mark.parametrize(
    ("padding", "size", "dropped"),
    [
        (0, (23, 16), "fill 23x16: the last 7 rows and 0 columns are .*; --size 16x16 or 24x16 "),
        (0, (16, 17), "fill 16x17: the last 0 rows and 1 columns are .*; --size 16x16 or 16x24 "),
        (0, 32, None),
        (1, 23, None),  # as some networks pad their images
    ],
)
def test_rows_that_fill_no_patch_are_told(
    register: Callable[[nn.Module], None],
    padding: int,
    size: Size,
    dropped: str | None,
    capsys: pytest.CaptureFixture[str],
) -> None:
    patches = nn.Sequential(nn.ZeroPad2d((0, padding) * 2), nn.Conv2d(3, 3, 8, stride=8))
    register(nn.Sequential(patches, nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    check_input_size("made", size, classes=3)
    told = capsys.readouterr().err
    assert told.count("\n") == bool(dropped)
    assert re.search(dropped or "^$", told)


def test_a_network_without_a_classifier() -> None:
    name = "timm/mobilenetv5_300m_enc"
    with pytest.raises(
        UserError, match=rf"{name} cannot be used, not even at 768x768: it has no c"
    ):
        check_input_size(name, 768, classes=10)


def test_batch_norm_cannot_be_trained_on_one_value() -> None:
    check_input_size("resnet50", 32, classes=10, batch=2)
    with pytest.raises(UserError, match=r"one 32x32 image at a time, as its batch norm needs two"):
        check_input_size("resnet50", 32, classes=10, batch=1)
    check_input_size("resnet50", 64, classes=10, batch=1)


def test_what_is_no_logits_in_training_cannot_be_trained(
    register: Callable[[nn.Module], None],
) -> None:
    class TwoHeads(nn.Module):
        def forward(self, images: torch.Tensor) -> object:
            logits = images.mean(dim=(2, 3))
            return (logits, logits) if self.training else logits

    register(TwoHeads())
    check_input_size("made", 8, classes=3)
    with pytest.raises(UserError, match=r"cannot be trained on 8x8 images: .* it gives tuple"):
        check_input_size("made", 8, classes=3, batch=4)
