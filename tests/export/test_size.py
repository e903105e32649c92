"""An input size that is not the network's own, down the road."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifact.artifact import Artifact
from artifact.golden import relative_error
from artifact.runtimes.base import load_runtime
from core.errors import UserError
from core.preprocess import Preprocess
from export.build import Options, build_artifacts
from export.costs import count
from export.network import load_network
from export.verify import verify


def test_a_run_is_exported_at_another_size_beside_its_own(in_trained: Path) -> None:
    network = load_network("mobilenet_v3", "digits", size=64)
    (outcome,) = build_artifacts(network, ["onnx-fp32"], Options(max_batch=8))
    artifact = outcome.artifact
    assert artifact is not None, outcome.reason
    assert artifact.path == Path("artifacts/mobilenet_v3_large-digits-64/onnx-fp32")
    assert artifact.input.shape == ("batch", 64, 64, 3)
    assert artifact.preprocess == Preprocess(resize=64, crop=64)
    assert artifact.rebuild_command.endswith(
        "--data digits --size 64 --formats onnx-fp32 --max-batch 8"
    )
    with pytest.raises(UserError, match="--channels 1: the run of mobilenet_v3_large on digits"):
        load_network("mobilenet_v3", "digits", channels=1)
    own = load_network("mobilenet_v3", "digits", size=32)
    assert (own.data, own.preprocess) == ("digits", Preprocess(resize=32, crop=32))

    pixels, _ = artifact.golden()
    assert pixels.shape[1:] == (64, 64, 3)
    assert verify(Artifact.load(artifact.path)).against.startswith("torch, ")
    with load_runtime("torch", artifact) as runtime:
        assert runtime(pixels).shape == (8, 10)


def test_the_resize_keeps_its_proportion_to_the_crop() -> None:
    network = load_network("mobilenet_v1_x0_25", None, "random", size=112)
    assert network.data == "random-112"
    assert network.preprocess == Preprocess(resize=128, crop=112)


def test_a_size_need_not_be_square(in_trained: Path) -> None:
    network = load_network("mobilenet_v3", "digits", size=(32, 48))
    assert network.preprocess == Preprocess(resize=(32, 48), crop=(32, 48))
    network = load_network("mobilenet_v1_x0_25", None, "random", size=(56, 84))
    assert network.preprocess == Preprocess(resize=(64, 96), crop=(56, 84))
    (outcome,) = build_artifacts(network, ["onnx-fp32"], Options(max_batch=8))
    artifact = outcome.artifact
    assert artifact is not None, outcome.reason
    assert artifact.path == Path("artifacts/mobilenet_v1_x0_25-random-56x84/onnx-fp32")
    assert artifact.input.shape == ("batch", 56, 84, 3)
    assert "--weights random --size 56x84 " in artifact.rebuild_command
    assert verify(Artifact.load(artifact.path)).against.startswith("torch, ")


def test_a_size_that_a_network_does_not_take_is_one_line() -> None:
    for size, reason in ((31, "at least 32x32"), (0, "size is 0: it must be at least 1")):
        with pytest.raises(UserError, match=reason):
            load_network("vgg16", None, "random", size=size)


def test_a_network_of_one_size_is_built_for_another(here: Path) -> None:
    network = load_network("timm/test_vit", None, "random", size=64)
    (outcome,) = build_artifacts(network, ["onnx-fp32"], Options(max_batch=8))
    artifact = outcome.artifact
    assert artifact is not None, outcome.reason
    assert artifact.input.shape == ("batch", 64, 64, 3)
    assert artifact.macs < count("timm/test_vit", 96).macs
    pixels, logits = artifact.golden()
    with load_runtime("torch", artifact) as runtime:  # made again from its seed
        assert relative_error(runtime(pixels), logits) < 1e-3


def test_what_a_network_of_one_size_cannot_be_built_for_is_one_line() -> None:
    with pytest.raises(UserError, match=r"cannot (be built for|take) 8x8 images"):
        load_network("timm/vit_tiny_patch16_224", None, "random", size=8)
