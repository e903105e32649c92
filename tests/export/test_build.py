from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from artifact import gates
from artifact.artifact import Artifact
from artifact.formats import artifact_names, group_names
from artifact.golden import check_golden
from artifact.records import Limits
from artifact.runtimes.base import load_runtime
from core.errors import UserError
from export import build
from export.build import Options, build_artifacts
from export.free_batch import shape_nodes
from export.network import load_network
from export.rebuild import rebuild
from models.cost import count_parameters, network_cost
from training.data import pixel_batches
from training.datasets import load_data

ONNX = ("onnx-fp32", "onnx-fp16", "onnx-int8")


def graph(artifact: Artifact) -> Any:
    return onnx.load(artifact.model_file).graph


@pytest.mark.parametrize("name", ONNX)
def test_every_onnx_artifact_is_proven(artifacts: dict[str, Artifact], name: str) -> None:
    artifact = artifacts[name]
    assert artifact.unverified is None
    assert artifact.parity is not None
    assert artifact.parity.batches == (1, 2, 8, 32)
    assert artifact.parity.images == 64
    assert artifact.metrics is not None
    assert artifact.metrics.images == 359
    with load_runtime("ort-cpu", artifact) as runtime:
        check_golden(runtime, artifact)


def test_the_recorded_top1_is_that_of_the_artifact(artifacts: dict[str, Artifact]) -> None:
    artifact = artifacts["onnx-int8"]
    assert artifact.metrics is not None
    data = load_data("digits")
    right = 0
    with load_runtime("ort-cpu", artifact, threads=1) as runtime:
        for pixels, labels in pixel_batches(data.val, artifact.preprocess, size=32):
            right += int((runtime(pixels).argmax(axis=1) == labels).sum())
    assert right / len(data.val) == artifact.metrics.top1


def test_equals_torch_on_real_images(artifacts: dict[str, Artifact], in_trained: Path) -> None:
    artifact = artifacts["onnx-fp32"]
    pixels, _ = next(pixel_batches(load_data("digits").val, artifact.preprocess, size=5))
    with torch.inference_mode():
        expected = rebuild(artifact)(torch.from_numpy(pixels)).numpy()
    for name in ("ort-cpu", "torch", "openvino"):
        with load_runtime(name, artifact, threads=1) as runtime:
            logits = runtime(pixels)
            assert runtime.name == name
        assert logits.dtype == np.float32
        np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


def test_the_graph_holds_no_shape_arithmetic(artifacts: dict[str, Artifact]) -> None:
    ops = Counter(node.op_type for node in graph(artifacts["onnx-fp32"]).node)
    for name in ONNX:
        assert (
            artifacts[name].shape_nodes == shape_nodes(onnx.load(artifacts[name].model_file)) == 0
        )
    assert ops["BatchNormalization"] == 0  # folded into the convolutions
    assert ops["GlobalAveragePool"] == 9
    assert ops["HardSwish"] == 21
    assert ops["Reshape"] == 1  # the head's


def test_weights_are_of_the_precision_the_name_says(artifacts: dict[str, Artifact]) -> None:
    def biggest(name: str) -> int:
        tensors = graph(artifacts[name]).initializer
        return int(max(tensors, key=lambda tensor: len(tensor.raw_data)).data_type)

    assert biggest("onnx-fp32") == onnx.TensorProto.FLOAT
    assert biggest("onnx-fp16") == onnx.TensorProto.FLOAT16
    assert biggest("onnx-int8") == onnx.TensorProto.INT8
    sizes = [artifacts[name].size for name in ONNX]
    assert sizes == sorted(sizes, reverse=True)


def test_macs_equal_those_torch_counts(artifacts: dict[str, Artifact], in_trained: Path) -> None:
    artifact = artifacts["onnx-fp32"]
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        rebuild(artifact)(torch.zeros(1, 32, 32, 3, dtype=torch.uint8))
    assert artifact.macs == counter.get_total_flops() / 2
    assert artifact.parameters == count_parameters(rebuild(artifact))
    graph = onnx.load(artifact.model_file)
    cost = network_cost(graph, parameters=artifact.parameters)
    assert (artifact.macs, artifact.parameters) == (cost.macs, cost.parameters)


@pytest.mark.no_gpu
def test_an_engine_is_built_without_a_gpu_and_says_it_was_not_run(
    artifacts: dict[str, Artifact],
) -> None:
    engine = artifacts["tensorrt_rtx-fp16"]
    assert engine.model_file.name == "model.engine"
    assert engine.size > 1_000_000
    assert engine.unverified is not None
    assert "no NVIDIA driver" in engine.unverified
    assert engine.parity is None
    assert engine.metrics is None
    _, golden = engine.golden()
    _, graphs = artifacts["onnx-fp16"].golden()
    np.testing.assert_allclose(golden, graphs, rtol=1e-5)


def test_an_artifact_that_misses_a_limit_leaves_nothing(
    artifacts: dict[str, Artifact],
    trained: Path,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (here / "runs").symlink_to(trained / "runs")
    limits = Limits(top1_agreement=1.0, top1_drop=-0.5, golden_error=1e-3)
    monkeypatch.setitem(gates.DEFAULTS, "fp32", limits)
    network = load_network("mobilenet_v3", "digits")
    (outcome,) = build_artifacts(network, ["onnx-fp32"], Options(max_batch=2))
    assert outcome.failed
    assert outcome.artifact is None
    assert outcome.reason is not None
    assert "top-1 lost: 0.00 points of torch's" in outcome.reason
    assert "on 359 images, must be at most -50.00 points" in outcome.reason
    assert not (build.ARTIFACTS / "mobilenet_v3_large-digits").exists()


def test_mistakes_are_said_in_one_line(in_trained: Path) -> None:
    for arguments, reason in (
        (("mobilenet_v33", "digits"), "unknown model 'mobilenet_v33': did you mean mobilenet_v3"),
        (("mobilenet_v3", "digit"), "unknown data 'digit'"),
    ):
        with pytest.raises(UserError, match=reason):
            load_network(*arguments)
    with pytest.raises(UserError, match="unknown format 'onnx-fp8': did you mean onnx-fp") as error:
        build.targets_of(["onnx-fp8"])
    assert all(name in str(error.value) for name in (*artifact_names(), *group_names()))


def test_without_a_run_nothing_random_is_exported(here: Path) -> None:
    with pytest.raises(UserError, match="make train MODEL=mobilenet_v3_large DATA=digits"):
        load_network("mobilenet_v3", "digits")


def test_imagenet_weights_that_cannot_be_had(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(here))

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torch.hub.urlopen", unreachable)
    with pytest.raises(UserError, match=r"cannot be fetched \(no network\).*WEIGHTS=random"):
        load_network("mobilenet_v3", None)


def test_imagenet_weights_on_disk_are_found_offline(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torchvision

    weights = torchvision.models.MobileNet_V3_Large_Weights.DEFAULT
    published = torchvision.models.mobilenet_v3_large()
    file = here / "hub" / "checkpoints" / weights.url.rpartition("/")[2]
    file.parent.mkdir(parents=True)
    torch.save(published.state_dict(), file)
    monkeypatch.setenv("TORCH_HOME", str(here))
    network = load_network("mobilenet_v3", None)
    assert (network.weights, network.data) == ("imagenet", "imagenet")
    assert network.labels[:2] == ("tench", "goldfish")
    assert (network.preprocess.resize, network.preprocess.crop) == (232, 224)
    loaded = network.module.backbone.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in published.state_dict().items())


def test_random_weights_are_sane_and_the_same_every_time(here: Path) -> None:
    first, second = (load_network("mobilenet_v3", None, "random") for _ in range(2))
    assert (first.weights, first.data) == ("random", "random")
    pixels, _ = next(pixel_batches(first.held_out, first.preprocess, size=2))
    with torch.inference_mode():
        logits = first.module(torch.from_numpy(pixels))
        assert torch.equal(logits, second.module(torch.from_numpy(pixels)))
    assert logits.std() > 1e-2  # not the 1e-9 of untrained batch norm
