from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import pytest

from artifact.formats import FORMATS
from artifact.store import SavedPick, save_pick
from core.errors import UserError
from predict.classifier import Classifier
from serving import selection, settings
from serving.selection import Wanted, select, settings_for
from serving.settings import Settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = Path("artifacts/mobilenet_v3_large-digits")
    folder.mkdir(parents=True)
    return folder


def fp32_in(folder: Path) -> None:
    (folder / "onnx-fp32").mkdir()
    (folder / "onnx-fp32" / "manifest.json").touch()


def test_what_the_benchmark_chose(folder: Path) -> None:
    save_pick(
        folder,
        SavedPick(
            artifact="onnx-int8", runtime="ort-cuda", threads=1, p50_s=0.00214, machine="box"
        ),
    )
    chosen = select(Wanted(model="mobilenet_v3", data="digits"), Settings())
    assert (chosen.artifact, chosen.runtime) == (folder / "onnx-int8", "ort-cuda")
    assert "2.14 ms on box" in chosen.why
    wanted = Wanted(model="mobilenet_v3", data="digits", runtime="ort-cpu")
    assert select(wanted, Settings()).runtime == "ort-cpu"


def test_what_was_picked_of_all_networks(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(selection, "CARRIED", tmp_path / "missing")
    save_pick(
        folder.parent,
        SavedPick(
            artifact=f"{folder.name}/onnx-int8",
            runtime="openvino",
            batch=1,
            threads=2,
            p50_s=0.003,
            machine="box",
        ),
    )
    chosen = select(Wanted(), Settings(artifact=selection.CARRIED))
    assert (chosen.artifact, chosen.runtime) == (folder / "onnx-int8", "openvino")
    assert chosen.call_threads == 2
    for part in ("3.00 ms", "box", "2 threads"):
        assert part in chosen.why
    # Whoever names a network gets what was chosen of that network.
    assert select(Wanted(model="mobilenet_v3", data="digits"), Settings()).call_threads is None


def test_fp32_where_nothing_was_chosen(folder: Path) -> None:
    fp32_in(folder)
    chosen = select(Wanted(model="mobilenet_v3_large", data="digits"), Settings())
    assert (chosen.artifact, chosen.runtime) == (folder / "onnx-fp32", "ort-cpu")
    assert "make bench" in chosen.why


@pytest.mark.parametrize(
    ("name", "data", "hint"),
    [
        ("mobilenet_v3", "imagenet", "there is --data digits"),
        ("mobilenet_v2", "imagenet", "did you mean mobilenet_v3_large-digits"),
        ("mobilenet_v2", "imagenet", r"make export MODEL=mobilenet_v2$"),
        ("mobilenet_v2", "digits", "make export MODEL=mobilenet_v2 DATA=digits"),
        ("timm/own", "imagenet", "there is --data net, --data pets"),
    ],
)
def test_a_network_without_artifacts(folder: Path, name: str, data: str, hint: str) -> None:
    for other in ("own-net", "own-pets"):
        (folder.parent / "timm" / other).mkdir(parents=True)
    with pytest.raises(UserError, match=hint) as error:
        select(Wanted(model=name, data=data), Settings())
    assert f"-{data}: no such folder" in str(error.value)


@pytest.mark.parametrize("given", ["folder", "its artifact", "the environment"])
def test_a_folder_stands_for_what_was_picked_in_it(
    given: str, artifact_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ARTIFACT", "RUNTIME"):
        monkeypatch.delenv(f"POCKETNETS_{name}", raising=False)
    picked = folder / "onnx-int8"
    shutil.copytree(artifact_path, picked)
    shutil.copytree(artifact_path, folder / "onnx-fp32")
    pick = SavedPick(
        artifact="onnx-int8", runtime="openvino", threads=2, p50_s=0.003, machine="box"
    )
    save_pick(folder, pick)
    wanted = Wanted(artifact={"folder": folder, "its artifact": picked}.get(given))
    if given == "the environment":
        monkeypatch.setenv("POCKETNETS_ARTIFACT", str(folder.absolute()))
    chosen = select(wanted, settings_for(wanted))
    assert chosen.artifact.absolute() == picked.absolute()
    assert (chosen.runtime, chosen.call_threads) == ("openvino", 2)
    assert "3.00 ms on box" in chosen.why
    monkeypatch.setenv("POCKETNETS_RUNTIME", "ort-cpu")  # who names a runtime means it
    assert select(wanted, settings_for(wanted)).runtime == "ort-cpu"
    other = Wanted(artifact=folder / "onnx-fp32", runtime="ort-cpu")
    assert select(other, settings_for(other)).call_threads is None


def test_predict_and_serve_choose_by_one_rule(
    artifact_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(artifact_path, folder / "onnx-fp32")
    shutil.copytree(artifact_path, folder / "onnx-int8")
    chosen = select(Wanted(artifact=folder), Settings())
    assert chosen.artifact == folder / "onnx-fp32"
    with Classifier.open(folder) as classifier:
        assert classifier.artifact.path == folder / "onnx-fp32"
    assert "no choice.json" in capsys.readouterr().err.replace("\n", " ")
    assert "no choice.json" in chosen.why
    shutil.rmtree(folder / "onnx-fp32")  # and there is nothing to fall back to
    with pytest.raises(UserError, match="name one of those in it: onnx-int8"):
        Classifier.open(folder)
    with pytest.raises(UserError, match="name one of those in it: onnx-int8"):
        settings_for(Wanted(artifact=folder))


def test_a_folder(folder: Path) -> None:
    assert select(Wanted(artifact=folder / "x"), Settings()).artifact == folder / "x"
    assert select(Wanted(), Settings(artifact=folder)).artifact == folder


def test_not_both(folder: Path) -> None:
    with pytest.raises(UserError, match="one of the two"):
        select(Wanted(artifact=folder, model="mobilenet_v3"), Settings())


def test_nothing_at_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "CARRIED", folder / "missing")
    with pytest.raises(UserError, match="no artifact to serve"):
        select(Wanted(), Settings(artifact=folder / "missing"))


def test_the_network_that_comes_with_its_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(selection, "CARRIED", folder / "missing")
    lite = folder.parent / "efficientnet_lite0-imagenet"
    lite.mkdir()
    fp32_in(lite)
    chosen = select(Wanted(data="digits"), Settings(artifact=folder / "missing"))
    assert chosen.artifact == lite / "onnx-fp32"


@pytest.mark.parametrize(
    ("proving", "used"),
    [("openvino", "openvino"), ("torch", "ort-cpu")],  # a server has no torch
)
def test_what_proved_the_format_runs_it_unless_another_is_named(
    artifact_path: Path, monkeypatch: pytest.MonkeyPatch, proving: str, used: str
) -> None:
    for name in ("ARTIFACT", "RUNTIME"):
        monkeypatch.delenv(f"POCKETNETS_{name}", raising=False)
    spec = dataclasses.replace(FORMATS["onnx"], proving_runtime=proving)
    monkeypatch.setitem(FORMATS, "onnx", spec)
    wanted = Wanted(artifact=artifact_path)
    assert select(wanted, settings_for(wanted)).runtime == used
    named = Wanted(artifact=artifact_path, runtime="ort-cuda")
    assert select(named, settings_for(named)).runtime == "ort-cuda"
    monkeypatch.setenv("POCKETNETS_ARTIFACT", f" {artifact_path}")
    assert settings_for(Wanted()).runtime == used
    assert settings_for(Wanted(model="mobilenet_v3")).runtime == "ort-cpu"
    monkeypatch.setenv("POCKETNETS_RUNTIME", "tensorrt")
    assert settings_for(wanted).runtime == settings_for(Wanted()).runtime == "tensorrt"


def test_a_carried_runtime_goes_with_the_carried_artifact_alone(
    artifact_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("ARTIFACT", "RUNTIME"):
        monkeypatch.delenv(f"POCKETNETS_{name}", raising=False)
    monkeypatch.setattr(settings, "CARRIED", tmp_path)
    monkeypatch.setattr(settings, "CARRIED_RUNTIME", tmp_path / "runtime.txt")
    (tmp_path / "runtime.txt").write_text("openvino\n")
    assert settings_for(Wanted()).runtime == "openvino"
    assert settings_for(Wanted(artifact=artifact_path)).runtime == "ort-cpu"
    assert settings_for(Wanted(model="mobilenet_v3")).runtime == "ort-cpu"
    monkeypatch.setenv("POCKETNETS_RUNTIME", "tensorrt")
    assert settings_for(Wanted()).runtime == "tensorrt"
    assert settings_for(Wanted(artifact=artifact_path)).runtime == "tensorrt"
