from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from artifact.formats import FORMATS
from artifact.store import SavedPick, save_pick
from core.errors import UserError
from serving import selection, settings
from serving.selection import Wanted, select, settings_for
from serving.settings import Settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = Path("artifacts/mobilenet_v3_large-digits")
    folder.mkdir(parents=True)
    return folder


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
    chosen = select(Wanted(model="mobilenet_v3_large", data="digits"), Settings())
    assert (chosen.artifact, chosen.runtime) == (folder / "onnx-fp32", "ort-cpu")
    assert "make bench" in chosen.why


def test_a_network_without_artifacts(folder: Path) -> None:
    with pytest.raises(UserError) as error:
        select(Wanted(model="mobilenet_v3"), Settings())
    message = str(error.value)
    assert "mobilenet_v3_large-imagenet" in message
    assert "did you mean mobilenet_v3_large-digits" in message
    assert "make export MODEL=mobilenet_v3 DATA=imagenet" in message


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
