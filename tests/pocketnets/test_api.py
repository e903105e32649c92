"""``import pocketnets``: its functions do what the commands do, and import only what they need."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from few_digits import few_digits, write_images
from PIL import Image
from several_labels import marked_folder
from torch import nn

import pocketnets
from artifact.artifact import Artifact
from artifact.runtimes.base import RuntimeUnavailable
from core.errors import UserError
from export.verify import verify
from models.classifier import Classifier
from pocketnets import api
from predict.evaluate import evaluate
from predict.several import SeveralEvaluation
from training.accelerators import Accelerators
from training.checkpoint import load_checkpoint
from training.options import FolderLayout, FolderOptions
from training.recipe import Recipe

ROOT = Path(__file__).resolve().parents[2]
PREPROCESS = pocketnets.Preprocess(resize=32, crop=32)  # takes 32x32 pixels as they are


def test_to_predict_loads_no_torch(artifact_path: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 40), (250, 10, 10)).save(tmp_path / "red.png")
    code = (
        "import sys, pocketnets\n"
        "light = set(sys.modules)\n"
        f"with pocketnets.load({str(artifact_path)!r}) as classify:\n"
        f"    label = classify({str(tmp_path / 'red.png')!r}).label\n"
        "heavy = {'torch', 'torchvision', 'numpy', 'onnxruntime', 'tyro', 'rich', 'bench'}\n"
        "print([label, sorted(heavy & light), sorted({'torch', 'bench'} & set(sys.modules))])"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.replace("'", '"')) == ["red", [], []]


def test_load_takes_runtime_and_threads(artifact_path: Path) -> None:
    with pocketnets.load(artifact_path, runtime="openvino", threads=1) as classify:
        assert (classify.runtime, classify.threads) == ("openvino", 1)
        red, blue = classify([np.full((32, 32, 3), colour, np.uint8) for colour in RED_AND_BLUE])
    assert isinstance(red, pocketnets.Prediction)
    assert (red.label, blue.label) == ("red", "blue")
    nowhere = artifact_path.parent.parent / "nothing"
    with pytest.raises(UserError, match=str(nowhere)):
        pocketnets.load(nowhere)


RED_AND_BLUE = ((255, 0, 0), (0, 0, 255))


def test_types_are_imported_when_asked_for() -> None:
    assert dir(pocketnets) == sorted(pocketnets.__all__)
    for name in pocketnets.__all__:
        assert getattr(pocketnets, name).__name__ == name
    with pytest.raises(AttributeError, match="no_such_name"):
        pocketnets.no_such_name  # noqa: B018


def test_train_is_a_run_with_its_record(here: Path) -> None:
    checkpoint = pocketnets.train("resnet14", "digits", epochs=1, resize=16, crop=16)
    run = here / "runs/resnet14-digits"
    assert checkpoint.metrics == load_checkpoint(run / "checkpoint.ckpt").metrics
    assert (checkpoint.recipe["epochs"], checkpoint.recipe["crop"]) == (1, 16)
    assert checkpoint.recipe["batch_size"] == 64  # of the recipe digits
    assert (
        "pocketnets.train('resnet14', 'digits', recipe='digits', epochs=1"
        in (run / "README.md").read_text()
    )


def test_train_takes_what_the_command_takes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marked_folder(here / "marked", 60)
    checkpoint = pocketnets.train(
        "resnet14",
        Path("marked"),
        recipe="digits",
        labels=Path("labels.csv"),
        labels_columns=[1, "labels"],
        multi_label=True,
        test_fraction=0.2,
        group_by=r"(\d)\.",
        accelerator="cpu",
        epochs=1,
        batch_size=8,
        resize=16,
        crop=16,
        log=("csv",),
    )
    assert checkpoint.task == "multi"
    assert checkpoint.options.flags == (
        *("--labels", "labels.csv", "--labels-columns", "1", "labels", "--multi-label"),
        *("--test-fraction", "0.2", "--group-by", r"(\d)\."),
    )
    assert checkpoint.metrics["test_images"] > 0
    assert "labels.csv: 3 labels of 60 images" in capsys.readouterr().err  # as the command says
    run = here / "runs/resnet14-marked"
    assert (run / "csv").is_dir()
    assert "multi_label=True, test_fraction=0.2" in (run / "README.md").read_text()


def test_names_of_options_are_of_one_thing_each() -> None:
    kinds = (Recipe, FolderOptions, Accelerators)
    names = [*signature(pocketnets.train).parameters]
    names += [field.name for kind in kinds for field in fields(kind)]
    assert len(set(names)) == len(names)


def test_cross_validate_trains_each_fold(here: Path) -> None:
    write_images(few_digits("few", train=64, val=32), here)
    shutil.move(here / "few/train", here / "all")
    spread = pocketnets.cross_validate(
        "resnet14", "all", folds=2, recipe="digits", epochs=1, batch_size=16, resize=16, crop=16
    )
    mean, deviation = spread["top1"]
    each = [load_checkpoint(here / f"runs/resnet14-all-fold{n}of2/checkpoint.ckpt") for n in (1, 2)]
    assert mean == pytest.approx(np.mean([one.metrics["top1"] for one in each]))
    assert deviation == pytest.approx(np.std([one.metrics["top1"] for one in each], ddof=1))
    said = (here / "runs/resnet14-all-fold2of2/README.md").read_text()
    assert "pocketnets.train('resnet14', 'all', recipe='digits'" in said
    assert "folds=2, fold=2)" in said
    summary = (here / "runs/resnet14-all-2folds/README.md").read_text()
    assert "pocketnets.cross_validate('resnet14', 'all', recipe='digits'" in summary


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"folds": 3}, "which one is held out.*cross_validate"),
        ({"group_by": "(a)"}, "digits has parts of its own; test_fraction and group_by are"),
        ({"multi_label": True}, "labels, labels_columns, multi_label=True and split_folders are"),
        ({"batch_size": 10**6}, "images of digits; try batch_size 719$"),
        ({"resume": True, "fresh": True}, "^resume=True and fresh=True: .* leave one out$"),
        ({"accelerators": "cpu"}, "'accelerators'.* accelerator"),
        ({"epoch": 3}, "'epoch'.* epochs"),
        ({"recipe": "digit"}, "'digit'.* digits"),
        ({"epochs": 0}, "epochs"),
        ({"epochs": "3"}, "epochs is '3': it must be a whole number"),
        ({"patience": 2.5}, "patience is 2.5: it must be a whole number"),
        ({"test_fraction": "0.2"}, "test_fraction is '0.2': it must be a number"),
        ({"flip": "no"}, "flip is 'no': it must be True or False"),
        ({"devices": True}, "devices is True: it must be a whole number"),
        ({"accelerator": "cuda"}, "unknown accelerator 'cuda'"),
        ({"devices": -1}, "^devices -1: it must be at least 0"),
        ({"nodes": 0}, "^nodes 0: it must be at least 1$"),
        ({"log": ("cvs",)}, "'cvs': did you mean csv"),
        ({"labels_columns": "id breed"}, r"a list, such as \['id', 'breed'\]"),
    ],
)
def test_train_refuses_in_one_line(here: Path, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(UserError, match=named) as refused:
        pocketnets.train("resnet14", "digits", **changes)
    assert "\n" not in str(refused.value)
    assert list(here.iterdir()) == []


def test_export_of_a_run(in_trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("export.build.ARTIFACTS", tmp_path)
    made = pocketnets.export("mobilenet_v3", data="digits", formats=["onnx-fp32"], max_batch=4)
    path = tmp_path / "mobilenet_v3_large-digits/onnx-fp32"
    assert made == {"onnx-fp32": Artifact.load(path)}
    assert made["onnx-fp32"].batch_range == (1, 4)


def module(classes: int = 3) -> nn.Module:
    """Returns a small network that is in training mode."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, classes),
    )


def test_export_of_a_module(here: Path) -> None:
    own, mean, std = module(), (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
    before = {name: value.clone() for name, value in own.state_dict().items()}
    made = pocketnets.export(
        own,
        name="own",
        labels=["a", "b", "c"],
        preprocess=PREPROCESS,
        mean=mean,
        std=std,
        formats=("onnx-fp32", "onnx-int8"),
    )
    assert own.training
    assert all(torch.equal(before[name], value) for name, value in own.state_dict().items())
    assert set(made) == {"onnx-fp32", "onnx-int8"}
    artifact = Artifact.load(here / "artifacts/own-module/onnx-fp32")
    assert (artifact.labels, artifact.preprocess) == (("a", "b", "c"), PREPROCESS)
    assert artifact.metrics is None  # photos without labels stood in

    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    images = (torch.from_numpy(pixels) / 255 - torch.tensor(mean)) / torch.tensor(std)
    with torch.inference_mode():
        logits = own.eval()(images.permute(0, 3, 1, 2)).numpy()
    with pocketnets.load(artifact.path) as classify:
        answers = classify(list(pixels))
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert [answer.index for answer in answers] == logits.argmax(axis=1).tolist()
    expected = pytest.approx(scores.max(axis=1).tolist(), abs=1e-4)
    assert [answer.score for answer in answers] == expected

    verified = verify(artifact)  # against its golden batch, as no file keeps the module
    assert "golden" in verified.against


def test_export_of_a_module_with_labels_of_its_images(here: Path) -> None:
    marked_folder(here / "marked", 60)
    channels = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    given = {**GIVEN, "labels": ("red", "green", "blue"), "mean": (0, 0, 0), "std": (1, 1, 1)}
    given |= {"data": "marked", "multi_label": True, "formats": ("onnx-fp32",)}
    made = pocketnets.export(channels, **given, image_labels="labels.csv")["onnx-fp32"]
    assert made.metrics is not None
    assert made.metrics.mean_ap == 1
    assert all(0.5 < each < 0.64 for each in made.thresholds)  # sigmoids of 0 to 0.35, 0.43 to 0.78
    with pytest.raises(UserError, match=r"^image_labels other\.csv: No such file"):
        pocketnets.export(channels, **given, image_labels="other.csv")


def test_export_of_a_module_of_several_labels(here: Path) -> None:
    own = module().eval()
    made = pocketnets.export(own, **GIVEN, multi_label=True, formats=("onnx-fp32",))["onnx-fp32"]
    assert (made.task, made.thresholds) == ("multi", (0.5, 0.5, 0.5))
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    images = (torch.from_numpy(pixels) / 255 - torch.tensor(api.MEAN)) / torch.tensor(api.STD)
    with torch.inference_mode():
        scores = own(images.permute(2, 0, 1)[None]).sigmoid()[0].tolist()
    with pocketnets.load(made.path) as classify:
        found = classify(pixels)
    assert dict(found.top) == pytest.approx(dict(zip("abc", scores, strict=True)), abs=1e-4)
    assert sorted(found.labels) == [
        name for name, score in zip("abc", scores, strict=True) if score > 0.5
    ]


def test_export_of_a_module_with_data_of_labels_in_another_order(trained: Path, here: Path) -> None:
    checkpoint = load_checkpoint(trained / "runs/mobilenet_v3_large-digits/checkpoint.ckpt")
    reversed_ = checkpoint.network()
    assert isinstance(reversed_, Classifier)
    made = pocketnets.export(
        nn.Sequential(reversed_.backbone, Reverse()),
        name="reversed",
        data="digits",
        labels=checkpoint.labels[::-1],
        preprocess=checkpoint.preprocess,
        formats=("onnx-fp32",),
    )
    metrics = made["onnx-fp32"].metrics
    assert metrics is not None
    assert metrics.top1 == pytest.approx(checkpoint.metrics["top1"], abs=1e-6)
    assert made["onnx-fp32"].path == Path("artifacts/reversed-digits/onnx-fp32")


class Reverse(nn.Module):
    """Reverses the order of the classes."""

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.flip(1)


class Broken(nn.Module):
    """Fails on every input."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


GIVEN: dict[str, Any] = {"name": "own", "labels": ["a", "b", "c"], "preprocess": PREPROCESS}


@pytest.mark.parametrize(
    ("network", "changes", "named"),
    [
        (module(), {"name": None}, "name .*None"),
        (module(), {"name": "../own"}, r"name .*'\.\./own'"),
        (module(), {"name": "mobilenet_v3"}, "name .*'mobilenet_v3'"),
        (module(), {"labels": None}, "labels"),
        (module(), {"labels": "abc"}, "labels"),
        (module(), {"labels": ["a", "b"]}, r"\[2, 3\] .*2 labels"),
        (module(), {"preprocess": None}, "preprocess"),
        (module(), {"mean": (124, 116, 104)}, r"mean .*\[124, 116, 104\]"),
        (module(), {"std": (0.2, 0.0, 0.2)}, r"std .*\[0\.2, 0\.0, 0\.2\]"),
        (module(), {"formats": ["onnx-fp8"]}, "'onnx-fp8'"),
        (module(), {"data": "digits"}, "digits .*10 .*labels"),
        (nn.Sequential(module(), nn.Softmax(1)), {}, "ends in a softmax"),
        (nn.Sequential(module(), nn.Sigmoid(), nn.Flatten()), {}, "a sigmoid.* multi_label=True"),
        (Broken(), {}, "32x32 .*mat1 and mat2"),
        ("resnet14", {}, "labels .*resnet14"),
        (lambda images: images, {}, "function"),
    ],
)
def test_export_of_a_module_refuses_in_one_line(
    here: Path, network: Any, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(UserError, match=named) as refused:
        pocketnets.export(network, **{**GIVEN, **changes})
    assert "\n" not in str(refused.value)
    assert list(here.iterdir()) == []


def test_a_format_that_cannot_be_made_is_refused_only_where_it_was_asked_for(
    in_trained: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def lacking(name: str) -> None:
        raise RuntimeUnavailable(f"{name}: there is none here")

    monkeypatch.setattr("artifact.runtimes.tensorrt_flavours.find_target", lacking)
    monkeypatch.setattr("export.build.DEFAULT_TARGETS", ("onnx-fp32", "tensorrt_rtx-fp16"))
    monkeypatch.setattr("export.build.ARTIFACTS", tmp_path)
    assert set(pocketnets.export("mobilenet_v3", data="digits")) == {"onnx-fp32"}
    told = capsys.readouterr().err
    assert "tensorrt_rtx-fp16" in told
    assert "there is none here" in told
    formats = ["tensorrt_rtx-fp16", "onnx-fp32"]
    with pytest.raises(UserError, match=r"^tensorrt_rtx-fp16: .*there is none here$"):
        pocketnets.export("mobilenet_v3", data="digits", formats=formats)
    assert Artifact.load(tmp_path / "mobilenet_v3_large-digits/onnx-fp32").format == "onnx"


@pytest.mark.parametrize(
    ("model", "flags", "named"),
    [
        ("mobilenet_v33", {}, "'mobilenet_v33'.* mobilenet_v3"),
        ("resnet14", {"data": "digits"}, "resnet14 .*digits"),
        ("resnet14", {"formats": ["onnx-fp8"]}, "'onnx-fp8'"),
        ("resnet14", {"max_batch": 0}, "max_batch .*0"),
    ],
)
def test_export_refuses_in_one_line(
    here: Path, model: str, flags: dict[str, Any], named: str
) -> None:
    with pytest.raises(UserError, match=named) as refused:
        pocketnets.export(model, **flags)
    assert "\n" not in str(refused.value)
    assert list(here.iterdir()) == []


def test_predict_yields_a_row_for_each_image(artifact_path: Path, here: Path) -> None:
    (here / "photos").mkdir()
    Image.new("RGB", (40, 40), (250, 10, 10)).save(here / "photos/a.png")
    (here / "photos/b.png").write_bytes(b"no image")
    Image.new("RGB", (40, 40), (10, 10, 250)).save(here / "photos/c.png")
    rows = list(pocketnets.predict(artifact_path, here / "photos", top_k=2, threads=1))
    assert [Path(row.path).name for row in rows] == ["a.png", "b.png", "c.png"]
    red, broken, blue = rows
    assert red.prediction is not None
    assert blue.prediction is not None
    assert (red.prediction.label, blue.prediction.label) == ("red", "blue")
    assert len(red.prediction.top) == 2
    assert broken.prediction is None
    assert broken.error is not None
    with pytest.raises(UserError, match="nowhere"):
        next(pocketnets.predict(artifact_path, "nowhere"))


def test_evaluate_agrees_with_the_manifest(
    artifacts: dict[str, Artifact], in_trained: Path
) -> None:
    fp32, int8 = artifacts["onnx-fp32"], artifacts["onnx-int8"]
    found = pocketnets.evaluate(fp32.path, "digits", against=int8.path)
    assert isinstance(found, pocketnets.Evaluation)
    assert fp32.metrics is not None
    assert int8.metrics is not None
    assert found.images == fp32.metrics.images
    assert found.top1 == pytest.approx(fp32.metrics.top1, abs=1e-6)
    assert found.against is not None
    assert found.against.figures.top1 == pytest.approx(int8.metrics.top1, abs=1e-6)


def test_evaluate_reads_a_folder_as_the_command_does(
    make_artifact: Callable[..., Path], here: Path
) -> None:
    several = make_artifact(task="multi", thresholds=(0.5, 0.5, 0.5))
    marked_folder(here / "marked", 30)
    given = {"labels": Path("labels.csv"), "labels_columns": [1, "labels"]}
    found = pocketnets.evaluate(several, "marked", **given)
    layout = FolderLayout(labels="labels.csv", labels_columns=("1", "labels"))
    expected = evaluate(several, "marked", layout=layout)
    assert isinstance(found, SeveralEvaluation)
    assert isinstance(expected, SeveralEvaluation)
    assert (found.images, found.mean_ap) == (30, expected.mean_ap)

    (here / "map.csv").write_text("blue,green\ngreen,blue\n")
    swapped = pocketnets.evaluate(several, "marked", **given, map="map.csv")
    assert isinstance(swapped, SeveralEvaluation)
    images = [{each.label: each.images for each in one.labels} for one in (found, swapped)]
    assert images[0]["blue"] == images[1]["green"] != images[1]["blue"]

    for changes, named in (
        ({}, "several labels: .* of each image, labels FILE$"),
        ({"labels": "nothing.csv"}, r"^labels nothing\.csv: No such file"),
        ({"labels": "labels.csv", "labels_columns": "1 2"}, r"a list, such as \['1', '2'\]"),
        ({"labels": "labels.csv", "split_folders": ["none"]}, "and no split_folders"),
    ):
        with pytest.raises(UserError, match=named):
            pocketnets.evaluate(several, "marked", **changes)
