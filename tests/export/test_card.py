from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from artifact.artifact import CARD, Artifact
from artifact.records import Abstention, Metrics, QatRun, Quantization
from core.errors import UserError
from core.preprocess import Preprocess
from export.build import Options
from export.card.write import write_card
from training.checkpoint import Checkpoint
from training.recipes import find_recipe
from training.records import Epoch

LABELS = ("red", "green", "blue")
# Rows the true class.
CONFUSION = torch.tensor([[8, 2, 0], [0, 10, 0], [5, 0, 5]])


def run(**fields: Any) -> Checkpoint:
    epoch = Epoch(
        epoch=1,
        loss=1.0,
        train_top1=0.5,
        val_loss=1.0,
        val_top1=23 / 30,
        learning_rate=0.1,
        images_per_second=1.0,
        train_seconds=1.0,
        val_seconds=1.0,
    )
    given: dict[str, Any] = {
        "model": "channels",
        "data": "colours",
        "labels": LABELS,
        "preprocess": Preprocess(resize=32, crop=32),
        "recipe": {"epochs": 3, "mixup": 0.2, "cutmix": 0.0, "teacher": "/home/me/runs/big"},
        "metrics": {"top1": 23 / 30, "images": 30, "test_top1": 0.7, "test_images": 20},
        "history": (epoch,),
        "confusion": CONFUSION,
        "state_dict": {},
        "trained_on": frozenset((b"a", b"b")),
    }
    return Checkpoint(**{**given, **fields})


def parted(text: str) -> tuple[dict[str, Any], str]:
    empty, front, body = text.split("---\n", 2)
    assert not empty
    return yaml.safe_load(front), body


@pytest.fixture
def artifact(artifact_path: Path, tmp_path: Path) -> Artifact:
    loaded = Artifact.load(artifact_path)
    metrics = Metrics(top1=0.7, torch_top1=0.75, images=20, runtime="ort-cpu")
    (tmp_path / "model.onnx").write_bytes(loaded.graph_file.read_bytes())
    for name in ("golden_pixels.npy", "golden_logits.npy"):
        (tmp_path / name).write_bytes((artifact_path / name).read_bytes())
    return dataclasses.replace(loaded, path=tmp_path, metrics=metrics, weights="trained")


def test_a_card_of_a_run(artifact: Artifact) -> None:
    path = write_card(artifact, run(), "cc-by-4.0")
    assert path == artifact.path / CARD
    front, body = parted(path.read_text())
    assert front["license"] == "cc-by-4.0"
    assert front["library_name"] == "onnx"
    (entry,) = front["model-index"]
    assert entry["name"] == "channels-colours"
    (result,) = entry["results"]
    assert result["dataset"]["name"] == "colours"
    figures = {each["type"]: each["value"] for each in result["metrics"]}
    assert figures == {"accuracy": 0.7}  # what was measured of the artifact, not of torch
    assert result["dataset"]["split"] == "held-out"

    lines = body.splitlines()
    assert "### Each class, of the network in torch" in lines
    # F1 of the classes: 16 / 23, 20 / 22, 10 / 15.
    f1 = f"{100 * (16 / 23 + 20 / 22 + 2 / 3) / 3:.1f} %"
    assert f"| macro-F1 | {f1} | 30 held-out images, torch |" in lines
    assert "| red | 10 | 80.0 % | 61.5 % | 69.6 % |" in lines
    assert "| `mixup` | 0.2 |" in lines
    assert not any("cutmix" in line for line in lines)  # at its default
    assert "| `teacher` | big |" in lines
    assert "| top-1: this artifact | 70.0 % | 20 held-out images, ort-cpu |" in lines
    assert "Trained on 2 images of colours; 30 images were held out." in lines
    assert "p50 " in body
    assert "ort-cpu (onnxruntime" in body
    for secret in ("/home/me", "secret", str(artifact.path)):
        assert secret not in path.read_text()


def test_a_card_names_its_recipe_and_lists_what_differs(artifact: Artifact) -> None:
    recipe = dataclasses.asdict(find_recipe("small", "resnet14"))
    made = run(model="resnet14", recipe=recipe | {"epochs": 3}, recipe_name="small")
    body = parted(write_card(artifact, made).read_text())[1]
    lines = body.partition("## Recipe")[2].partition("## Figures")[0].splitlines()
    assert any("`small`" in line for line in lines)
    assert [line for line in lines if line.startswith("| `")] == ["| `epochs` | 3 |"]


def test_a_card_says_what_is_known_of_another_recipe(artifact: Artifact) -> None:
    for name, known in (
        (None, "of an earlier version"),
        ("custom", "of its own"),
        ("old", "`old`"),
    ):
        body = parted(write_card(artifact, run(recipe_name=name)).read_text())[1]
        part = body.partition("## Recipe")[2].partition("## Figures")[0]
        assert known in part
        assert "| `mixup` | 0.2 |" in part


def test_a_card_says_when_it_abstains(artifact: Artifact) -> None:
    found = Abstention(threshold=0.8125, wanted=0.9, precision=0.925, coverage=0.75, images=40)
    body = parted(write_card(dataclasses.replace(artifact, abstention=found), run()).read_text())[1]
    (line,) = (each for each in body.splitlines() if "abstain" in each)
    for figure in ("0.812", "92.5 %", "75.0 %", "40 held-out images"):
        assert figure in line


def test_a_card_names_the_data_of_int8_training_and_of_a_fold(artifact: Artifact) -> None:
    qat = QatRun(checkpoint="runs/a/checkpoint.ckpt", sha256="0" * 64, epochs=7)
    made = Quantization(calibration="QAT", images=64, labelled=True, top1={"QAT": 0.5})
    trained = dataclasses.replace(
        artifact,
        data="cifar10-fold2of3-qat",
        quantization=made,
        source=dataclasses.replace(artifact.source, qat=qat, fold="2of3"),
    )
    front, body = parted(write_card(trained, run(data="cifar10-fold2of3")).read_text())
    assert front["datasets"] == ["uoft-cs/cifar10"]
    assert front["model-index"][0]["results"][0]["dataset"]["name"] == "cifar10"
    assert "images of cifar10;" in body
    assert "fold 2 of 3" in body
    assert "(QAT) then trained the int8 form for 7 epochs" in body
    assert "calibrated" not in body


def test_a_card_without_a_run_says_what_is_not_known(artifact: Artifact) -> None:
    bare = dataclasses.replace(
        artifact, metrics=None, parity=None, weights="random", unverified="made where it | cannot"
    )
    front, body = parted(write_card(bare, None).read_text())
    assert front.keys() == {"library_name", "pipeline_tag", "tags"}
    assert "Not measured: made where it \\| cannot." in body
    assert "Each class" not in body
    assert "latency only" in body
    assert "No licence was given" in body


def test_several_labels_of_an_image(artifact: Artifact) -> None:
    counts = torch.tensor([[[5, 1], [2, 4]], [[8, 0], [0, 4]], [[6, 2], [4, 0]]])
    metrics = Metrics(top1=0.7, torch_top1=0.7, images=9, runtime="ort-cpu", part="test")
    several = dataclasses.replace(
        artifact, task="multi", thresholds=(0.25, 0.5, 0.75), metrics=metrics
    )
    made = run(confusion=counts, task="multi", metrics={"top1": 0.7, "images": 12})
    front, body = parted(write_card(several, made).read_text())
    lines = body.splitlines()
    assert "| red | 6 | 66.7 % | 80.0 % | 72.7 % | 0.250 |" in lines
    assert "| blue | 4 | 0.0 % | 0.0 % | 0.0 % | 0.750 |" in lines
    assert any("| 12 held-out images, torch |" in line and "macro-F1" in line for line in lines)
    assert any("| 9 test images, ort-cpu |" in line for line in lines)
    assert front["model-index"][0]["results"][0]["dataset"]["split"] == "test"
    assert '    print(classify("photo.jpg").labels)' in lines
    assert "3 labels" in body
    assert "3 classes" not in body
    assert "pixels of 32x32" in body
    assert "per call, of 32x32." in body
    assert "balanced accuracy" not in body
    name = front["model-index"][0]["results"][0]["metrics"][0]["name"]
    assert name.startswith("images with exactly the right labels")


def test_of_many_classes_the_worst_are_listed(artifact: Artifact) -> None:
    count = 150
    confusion = torch.eye(count, dtype=torch.int64) * 4
    confusion[7, 7], confusion[7, 8] = 1, 3
    labels = tuple(f"class {number}" for number in range(count))
    text = write_card(artifact, run(labels=labels, confusion=confusion)).read_text()
    rows = [line for line in text.splitlines() if line.startswith("| class ")][1:]
    assert len(rows) == 20
    assert rows[0].startswith("| class 7 | 4 | 25.0 %")


def test_model_hubs_can_read_it(artifact: Artifact) -> None:
    hub = pytest.importorskip("huggingface_hub")
    path = write_card(artifact, run(), "apache-2.0")
    card = hub.ModelCard.load(path)
    assert card.data.model_name == "channels-colours"
    values = {each.metric_type: each.metric_value for each in card.data.eval_results}
    assert values["accuracy"] == 0.7
    assert {each.dataset_name for each in card.data.eval_results} == {"colours"}
    assert {each.task_type for each in card.data.eval_results} == {"image-classification"}
    # What it read is written again with the same fields.
    assert yaml.safe_load(card.data.to_yaml()) == parted(path.read_text())[0]


def test_an_export_writes_it_beside_the_artifact(graphs: dict[str, Artifact]) -> None:
    for name, artifact in graphs.items():
        front, body = parted((artifact.path / CARD).read_text())
        assert front["tags"][-1] == artifact.precision
        assert artifact.metrics is not None
        (result,) = front["model-index"][0]["results"]
        assert result["metrics"][0]["value"] == pytest.approx(artifact.metrics.top1, abs=1e-4)
        assert body.splitlines()[1].endswith(name)
        assert body.count("| `epochs` | 2 |") == 1


def test_a_licence_is_an_identifier() -> None:
    assert Options(license="cc-by-nc-4.0").license == "cc-by-nc-4.0"
    with pytest.raises(UserError, match="must be an identifier"):
        Options(license="Apache License 2.0")
