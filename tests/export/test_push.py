from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_hub_writes import LARGE, Hub, Repository, writable_hub
from fake_registry import fake_registry

from artifact.artifact import Artifact
from core.errors import UserError
from export.card.write import write_card
from export.push.changes import Changes
from export.push.command import Push, artifacts_in

# Inside huggingface_hub, where it uploads without hf_xet.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
Make = Callable[..., Path]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    module = pytest.importorskip("huggingface_hub")
    with writable_hub() as found:
        for where in ("constants.ENDPOINT", "hf_api.constants.ENDPOINT"):
            monkeypatch.setattr(f"huggingface_hub.{where}", found.endpoint)
        monkeypatch.setattr(module.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("HF_TOKEN", "a token")
        module.utils.disable_progress_bars()
        yield found


@pytest.fixture
def folder(artifact_path: Path, tmp_path: Path) -> Path:
    """Returns a folder with an artifact that has a model card."""
    parent = tmp_path / "artifacts" / "channels-colours"
    copy = shutil.copytree(artifact_path, parent / "onnx-fp32")
    write_card(Artifact.load(copy), None)
    return parent


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_a_push_is_one_commit(hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Push((str(folder), "hf://me/colours"))()
    said, address = lines(capsys)
    repository = hub.repositories["me/colours"]
    assert repository.private
    assert len(repository.commits) == 1
    expected = {
        f"onnx-fp32/{file.name}": file.read_bytes() for file in (folder / "onnx-fp32").iterdir()
    }
    expected["README.md"] = (folder / "onnx-fp32" / "README.md").read_bytes()
    expected["labels.txt"] = b"red\ngreen\nblue\n"
    assert repository.files == expected
    assert repository.large == {name for name, data in expected.items() if len(data) > LARGE}
    assert "hf://me/colours (private): 7 new (" in said
    assert address == f"{hub.endpoint}/me/colours/commit/{repository.sha}"
    # What is there can be loaded as it was.
    assert Artifact.load(folder / "onnx-fp32").name == "onnx-fp32"


def test_a_second_push_says_what_changed(
    hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    push = Push((str(folder / "onnx-fp32"), "hf://me/colours"))
    push()
    capsys.readouterr()
    push()
    said, address = lines(capsys)
    assert "has all of it already: 7 as before" in said
    assert address == f"{hub.endpoint}/me/colours"
    repository = hub.repositories["me/colours"]
    assert len(repository.commits) == 1
    repository.files["notes.md"] = b"by hand"
    card = folder / "onnx-fp32" / "README.md"
    card.write_text(card.read_text() + "Completed by hand.\n")
    push()
    said, _ = lines(capsys)
    assert "2 changed (onnx-fp32/README.md, README.md), 5 as before" in said
    assert repository.files["notes.md"] == b"by hand"
    assert repository.files["README.md"].endswith(b"by hand.\n")


def test_nothing_is_published_by_accident(
    hub: Hub, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hub.repositories["me/open"] = Repository(private=False)
    with pytest.raises(UserError, match="is public, and all can see"):
        Push((str(folder), "hf://me/open"))()
    assert not hub.repositories["me/open"].commits
    Push((str(folder), "hf://me/open"), public=True)()
    assert "hf://me/open (public): 7 new" in lines(capsys)[0]
    hub.repositories["me/closed"] = Repository(private=True)
    with pytest.raises(UserError, match="is private: leave out --public"):
        Push((str(folder), "hf://me/closed"), public=True)()
    Push((str(folder), "hf://me/new"), public=True)()
    assert not hub.repositories["me/new"].private


@pytest.mark.parametrize("refused", ["create", "preupload", "commit"])
def test_what_the_hub_refuses_is_told_in_one_line(hub: Hub, folder: Path, refused: str) -> None:
    hub.refuse = refused
    with pytest.raises(UserError, match=r"^hf://me/colours: nothing was pushed \(.*403") as told:
        Push((str(folder), "hf://me/colours"))()
    assert "\n" not in str(told.value)
    assert not any(each.files for each in hub.repositories.values())


def test_what_others_pushed_meanwhile_is_not_overwritten(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.push.hub._changes", lambda *_: _committed(hub))
    with pytest.raises(UserError, match="A commit has happened since"):
        Push((str(folder), "hf://me/colours"))()
    assert not hub.repositories["me/colours"].files


def _committed(hub: Hub) -> Changes:
    hub.repositories["me/colours"].commits.append({})
    return Changes(new=("README.md",), changed=(), same=0)


def test_mistakes_end_in_one_line(folder: Path, make_artifact: Make, tmp_path: Path) -> None:
    path = str(folder / "onnx-fp32")
    for what, message in (
        ((), "nothing to push"),
        (("hf://me/colours",), "nothing to push"),
        ((path, "hf://colours"), "it must be hf://OWNER/NAME or mlflow://NAME"),
        ((path, "ftp://me/colours"), "it must be hf://OWNER/NAME or mlflow://NAME"),
        ((str(tmp_path / "none"), "hf://me/x"), "not an artifact"),
    ):
        with pytest.raises(UserError, match=message):
            Push(what)()
    with pytest.raises(UserError, match="--public is for a repository"):
        Push((path,), public=True)()
    without = make_artifact()
    with pytest.raises(UserError, match=r"has no README\.md"):
        Push((str(without), "hf://me/x"))()
    other = make_artifact(model="others")
    write_card(Artifact.load(other), None)
    with pytest.raises(UserError, match="of another network"):
        Push((path, str(other), "hf://me/x"))()


def test_a_folder_stands_for_its_artifacts(folder: Path) -> None:
    shutil.copytree(folder / "onnx-fp32", folder / ".onnx-fp16-abc" / "new")
    assert [each.path for each in artifacts_in(folder)] == [folder / "onnx-fp32"]
    assert [each.path for each in artifacts_in(folder / "onnx-fp32")] == [folder / "onnx-fp32"]


def test_changes_in_words() -> None:
    before = {"a": "1", "b": "2", "z": "9"}
    found = Changes.between(before, {"a": "1", "b": "3", **{f"n{i}": "" for i in range(7)}})
    assert str(found) == "7 new (n0, n1, n2, n3, n4 and 2 more), 1 changed (b), 1 as before"
    assert not Changes.between(before, {"a": "1"})


def test_mlflow_gets_a_version_of_whole_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    registry = fake_registry(monkeypatch)
    push = Push((str(folder), "mlflow://colours"))
    push()
    said, address = lines(capsys)
    assert said == "registered as version 1 of colours: 1 new (onnx-fp32), 0 as before"
    assert address == "models:/colours/1"
    (run,) = registry.runs
    assert run.status == "FINISHED"
    assert run.files["model/onnx-fp32/model.onnx"] == (folder / "onnx-fp32/model.onnx").read_bytes()
    (version,) = registry.models["colours"]
    assert version.source == "mlflow-artifacts:/run0/model"
    assert version.description.startswith("# channels on colours")

    push()
    said, _ = lines(capsys)
    assert said == "version 1 of colours is the same: 1 as before"
    assert len(registry.runs) == 1


@pytest.mark.parametrize("call", ["log_artifacts", "create_model_version"])
def test_mlflow_has_no_version_of_what_failed(
    folder: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    registry = fake_registry(monkeypatch)
    registry.refuse = call
    push = Push((str(folder), "mlflow://colours"))
    with pytest.raises(UserError, match=r"^mlflow://colours: .*\(connection refused\)$"):
        push()
    assert registry.runs[0].status == "FAILED"
    assert not registry.models.get("colours")
    registry.refuse = ""
    push()  # also where the model is there without a version
    assert len(registry.models["colours"]) == 1


def test_mlflow_itself(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder.parent}/mlflow.db")
    for expected in ("models:/colours/1", "models:/colours/1"):
        Push((str(folder), "mlflow://colours"))()
        assert lines(capsys)[-1] == expected


def test_a_target_that_is_no_address_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"hf://OWNER/NAME or mlflow://NAME"):
        Push((str(folder / "onnx-fp32"), str(tmp_path / "foo")))()
