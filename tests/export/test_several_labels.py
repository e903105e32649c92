"""Export of networks whose images have several labels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from several_labels import LABELS

from artifact import gates
from artifact.answering import answering_of
from artifact.artifact import Artifact
from artifact.records import Abstention, Limits
from artifact.runtimes.base import load_runtime
from artifact.scores import sigmoid
from bench.latency.record import top1
from export import build
from export.build import Options, build_artifacts
from export.litert.metadata import metadata_of
from export.network import load_network
from export.table import calibration, show_tables
from export.verify import verify
from training.checkpoint import checkpoint_path, load_checkpoint, run_folder
from training.datasets import load_data
from training.summary.label_figures import label_figures

FORMATS = ("onnx-fp32", "onnx-fp16", "onnx-int8", "litert-fp32")


@pytest.fixture(scope="module")
def made(trained_several: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    """Returns the artifacts of the network that learned several labels, by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(trained_several)
        patch.setattr(build, "ARTIFACTS", tmp_path_factory.mktemp("artifacts"))
        network = load_network("resnet14", "marked")
        outcomes = list(build_artifacts(network, FORMATS, Options(max_batch=2)))
    assert not [outcome.reason for outcome in outcomes if outcome.failed]
    return {outcome.target: outcome.artifact for outcome in outcomes if outcome.artifact}


def test_a_manifest_has_task_thresholds_and_map(
    made: dict[str, Artifact], in_several: Path
) -> None:
    checkpoint = load_checkpoint(checkpoint_path(run_folder("resnet14", "marked")))
    assert set(FORMATS[:3]) <= made.keys()
    for artifact in made.values():
        assert (artifact.task, artifact.labels) == ("multi", LABELS)
        assert artifact.thresholds == checkpoint.thresholds
        metrics = artifact.metrics
        assert metrics is not None
        assert metrics.mean_ap is not None
        assert metrics.torch_mean_ap == pytest.approx(checkpoint.metrics["test_map"])
        assert metrics.mean_ap > 0.9
        assert {gate.name for gate in artifact.gates} > {"agreement", "drop"}


def test_figures_are_of_the_runtimes_answers(made: dict[str, Artifact], in_several: Path) -> None:
    checkpoint = load_checkpoint(checkpoint_path(run_folder("resnet14", "marked")))
    data = load_data("marked", checkpoint.options)
    artifact = made["onnx-int8"]
    from export.samples import stack

    pixels, truth = stack(data.test, artifact.preprocess), data.targets(data.test)
    with load_runtime("ort-cpu", artifact) as runtime:
        parts = [runtime(pixels[at : at + 2]) for at in range(0, len(pixels), 2)]
    logits = np.concatenate(parts)
    found = label_figures(truth, sigmoid(logits), artifact.thresholds, LABELS)
    assert artifact.metrics is not None
    assert artifact.metrics.mean_ap == pytest.approx(found.mean_ap)
    assert artifact.metrics.top1 == pytest.approx(found.exact)
    answers = answering_of(artifact).sets(logits)
    assert (answers == (sigmoid(logits) > artifact.thresholds)).all()


def test_the_card_and_the_benchmark_have_the_map(made: dict[str, Artifact]) -> None:
    artifact = made["onnx-fp32"]
    assert artifact.metrics is not None
    assert artifact.metrics.mean_ap is not None
    figure = f"{100 * artifact.metrics.mean_ap:.1f} %"
    card = (artifact.path / "README.md").read_text()
    assert f"| mAP: this artifact | {figure} |" in card
    assert "type: mAP" in card
    assert "split: test" in card
    images = artifact.metrics.images
    assert f"{images} test images" in card
    assert f"{images} held-out images" not in card
    row = SimpleNamespace(metrics=artifact.metrics)
    assert top1(row) == f"{figure} mAP of {artifact.metrics.images}"  # type: ignore[arg-type]


def test_it_is_verified_again(made: dict[str, Artifact], in_several: Path) -> None:
    verified = verify(made["onnx-fp32"])
    assert verified.against == "torch, trained on marked"
    (drop,) = [gate for gate in verified.gates if gate.name == "drop"]
    assert str(drop).startswith("mAP lost: 0.00 points")
    (agreement,) = [gate for gate in verified.gates if gate.name == "agreement"]
    assert (agreement.value, agreement.limit) == (1.0, 0.99)


def test_what_loses_map_leaves_nothing(
    in_several: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "ARTIFACTS", tmp_path)
    limits = Limits(top1_agreement=1.0, top1_drop=-0.5, golden_error=1e-3)
    monkeypatch.setitem(gates.DEFAULTS, "fp32", limits)
    (outcome,) = build_artifacts(
        load_network("resnet14", "marked"), ["onnx-fp32"], Options(max_batch=2)
    )
    assert outcome.failed
    assert "mAP lost: 0.00 points of torch's" in str(outcome.reason)


def test_a_table_shows_map_and_thresholds(made: dict[str, Artifact]) -> None:
    facts = {
        str(name): str(value)
        for name, value in zip(*(column._cells for column in show(made)), strict=True)
    }
    assert facts["mAP"].endswith(" test images")
    assert facts["thresholds"].startswith("blue 0.")
    said = calibration(made["onnx-int8"])
    assert "top-1" not in said
    assert "Jaccard" in said


def show(made: dict[str, Artifact]) -> Any:
    return show_tables(made["onnx-fp32"])[0].columns


def test_phones_are_told_of_the_sigmoid(made: dict[str, Artifact]) -> None:
    assert b"sigmoid makes a probability" in metadata_of(made["onnx-fp32"])


def test_core_ml_gives_the_sigmoid(made: dict[str, Artifact], tmp_path: Path) -> None:
    coremltools = pytest.importorskip("coremltools")
    fake_coreml = pytest.importorskip("fake_coreml")
    from artifact.formats import CORE_ML_PACKAGE
    from core.preprocess import image_of
    from export.coreml.build import build as build_package

    assert coremltools
    artifact = made["onnx-fp16"]
    draft = replace(artifact, path=tmp_path, format="coreml")
    build_package(draft, artifact.graph_file.read_bytes(), ())
    model = fake_coreml.MLModel(str(tmp_path / CORE_ML_PACKAGE))
    (answer,) = model.predict([{"pixels": image_of(artifact.golden()[0][0])}])
    assert "classLabel" not in answer
    expected = torch.from_numpy(answer["logits"]).sigmoid()
    torch.testing.assert_close(
        torch.from_numpy(answer["probabilities"]), expected, rtol=1e-2, atol=1e-2
    )


def test_a_manifest_has_the_abstention_of_its_run(
    in_several: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Abstention(threshold=0.8, wanted=0.9, precision=0.91, coverage=0.7, images=359)
    path = checkpoint_path(run_folder("resnet14", "marked"))
    saved = replace(load_checkpoint(path), abstention=found)  # type: ignore[arg-type]
    monkeypatch.setattr("export.network.load_checkpoint", lambda _: saved)
    assert load_network("resnet14", "marked").abstention == found
