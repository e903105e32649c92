"""``import pocketnets``: its functions do what the commands do, and load what they need."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import pocketnets
from artifact.artifact import Artifact
from artifact.runtimes.base import RuntimeUnavailable
from core.errors import UserError
from training.checkpoint import load_checkpoint

ROOT = Path(__file__).resolve().parents[2]


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
    with pytest.raises(UserError, match="not an artifact"):
        pocketnets.load(artifact_path.parent.parent / "nothing")


RED_AND_BLUE = ((255, 0, 0), (0, 0, 255))


def test_types_are_imported_when_asked_for() -> None:
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


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epoch": 3}, "unknown field of a recipe 'epoch': did you mean epochs"),
        ({"recipe": "digit"}, "unknown recipe 'digit': did you mean digits"),
        ({"epochs": 0}, "epochs"),
    ],
)
def test_train_refuses_in_one_line(here: Path, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as refused:
        pocketnets.train("resnet14", "digits", **changes)
    assert "\n" not in str(refused.value)
    assert list(here.iterdir()) == []


def test_export_of_a_run(in_trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("export.build.ARTIFACTS", tmp_path)
    made = pocketnets.export("mobilenet_v3", data="digits", formats=["onnx-fp32"], max_batch=4)
    path = tmp_path / "mobilenet_v3_large-digits/onnx-fp32"
    assert made == {"onnx-fp32": Artifact.load(path)}
    assert made["onnx-fp32"].batch_range == (1, 4)


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
    assert "tensorrt_rtx-fp16: tensorrt_rtx: there is none here" in capsys.readouterr().err
    formats = ["tensorrt_rtx-fp16", "onnx-fp32"]
    with pytest.raises(UserError, match=r"^tensorrt_rtx-fp16: .*there is none here$"):
        pocketnets.export("mobilenet_v3", data="digits", formats=formats)
    assert Artifact.load(tmp_path / "mobilenet_v3_large-digits/onnx-fp32").format == "onnx"


@pytest.mark.parametrize(
    ("model", "flags", "words"),
    [
        ("mobilenet_v33", {}, "'mobilenet_v33': did you mean .*mobilenet_v3"),
        ("resnet14", {"data": "digits"}, "no run of resnet14 on digits"),
        ("resnet14", {"formats": ["onnx-fp8"]}, "unknown format 'onnx-fp8': did you mean"),
        ("resnet14", {"max_batch": 0}, "max_batch is 0"),
    ],
)
def test_export_refuses_in_one_line(
    here: Path, model: str, flags: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words) as refused:
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
    with pytest.raises(UserError, match="no such file or folder"):
        next(pocketnets.predict(artifact_path, "nowhere"))
