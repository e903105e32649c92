"""Weights for RGB, and random ones, in networks for images of other channels."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from timm.models import adapt_input_conv

from artifact.artifact import Artifact
from artifact.golden import relative_error
from artifact.runtimes.base import load_runtime
from core.errors import UserError
from core.preprocess import Preprocess
from export.build import Options, build_artifacts
from export.costs import count
from export.network import load_network
from export.verify import verify
from models.channels import adapted, adapted_form
from models.imagenet import ImageNetWeights, PublishedForm
from models.registry import build_model

MEAN, STD = (0.4, 0.5, 0.6), (0.1, 0.2, 0.3)


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_a_first_convolution_is_adapted_as_in_timm(channels: int) -> None:
    rgb = {"stem.weight": torch.randn(5, 3, 3, 3), "next.weight": torch.randn(5, 5, 1, 1)}
    expected = rgb | {"stem.weight": torch.empty(5, channels, 3, 3)}
    found = adapted(rgb, expected, channels)
    torch.testing.assert_close(found["stem.weight"], adapt_input_conv(channels, rgb["stem.weight"]))
    assert found["next.weight"] is rgb["next.weight"]


def test_pixels_in_the_channels_are_adapted_as_in_timm() -> None:
    name, key = "tresnet_m", "body.conv1.conv.weight"
    rgb, grey = (timm.create_model(name, in_chans=channels).state_dict() for channels in (3, 1))
    torch.testing.assert_close(adapted(rgb, grey, 1)[key], adapt_input_conv(1, rgb[key]))


def test_mean_and_std_go_with_the_weights() -> None:
    rgb = PublishedForm(Preprocess(resize=8, crop=8, fill=(102, 128, 153)), MEAN, STD)
    grey = adapted_form(rgb, 1)
    assert (grey.mean, grey.std) == (pytest.approx((0.5,)), pytest.approx((0.2,)))
    assert grey.preprocess == Preprocess(resize=8, crop=8, fill=(128,), channels=1)
    assert adapted_form(rgb, 2)[1:] == ((0.4, 0.5), (0.1, 0.2))
    assert adapted_form(rgb, 4)[1:] == ((0.4, 0.5, 0.6, 0.4), (0.1, 0.2, 0.3, 0.1))


@pytest.mark.parametrize(
    ("name", "channels"), [("mobilenet_v1_x0_25", 1), ("timm/test_resnet.r160_in1k", 4)]
)
def test_published_weights_take_other_channels(
    name: str, channels: int, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    published = build_model(name).eval()
    weights = ImageNetWeights(
        state_dict=published.state_dict(),
        labels=tuple(f"class {index}" for index in range(1000)),
        preprocess=Preprocess(resize=64, crop=64),
        mean=MEAN,
        std=(0.2,) * 3,
        origin="made here",
    )
    for module in ("export.network", "export.rebuild"):
        monkeypatch.setattr(f"{module}.load_imagenet_weights", lambda _: weights)
    network = load_network(name, None, "imagenet", channels=channels, size=48)
    assert network.data == f"imagenet-{channels}ch-48"
    pixels = torch.randint(256, (2, 48, 48, channels), dtype=torch.uint8)
    images = pixels.permute(0, 3, 1, 2) / 255
    if channels == 1:
        alike = ((images - 0.5) / 0.2).expand(-1, 3, -1, -1)
    else:  # red takes the alpha channel's share too
        scaled = (images - torch.tensor([*MEAN, 0.4]).view(-1, 1, 1)) / 0.2 * 0.75
        alike = torch.cat([scaled[:, :1] + scaled[:, 3:], scaled[:, 1:3]], dim=1)
    with torch.inference_mode():
        assert relative_error(network.module(pixels).numpy(), published(alike).numpy()) < 1e-4

    (outcome,) = build_artifacts(network, ["onnx-fp32"], Options(max_batch=2))
    assert outcome.artifact is not None, outcome.reason
    artifact = Artifact.load(outcome.artifact.path)
    assert artifact.source.reading is not None
    assert len(artifact.source.reading.assumed) == 2
    assert f"--weights imagenet --channels {channels} --size 48 " in artifact.rebuild_command
    with load_runtime("torch", artifact) as runtime:
        assert relative_error(runtime(pixels.numpy()), published(alike).detach().numpy()) < 1e-3
    if channels == 1:
        with pytest.raises(UserError, match=r"channels is 0: it must be 1 \(grey\)"):
            load_network(name, None, "imagenet", channels=0)


def test_random_weights_take_grey_images(here: Path) -> None:
    network = load_network("mobilenet_v1_x0_25", None, "random", size=64, channels=1)
    (outcome,) = build_artifacts(network, ["onnx-fp32"], Options(max_batch=2))
    assert outcome.artifact is not None, outcome.reason
    artifact = outcome.artifact
    assert artifact.path == Path("artifacts/mobilenet_v1_x0_25-random-1ch-64/onnx-fp32")
    assert artifact.input.shape == ("batch", 64, 64, 1)
    assert "--weights random --size 64 --channels 1 " in artifact.rebuild_command
    assert verify(Artifact.load(artifact.path)).against.startswith("torch, ")  # from its seed
    assert artifact.macs == count("mobilenet_v1_x0_25", 64, channels=1).macs
