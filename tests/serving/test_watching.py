"""What changes in a repository changes in the service that watches it."""

from __future__ import annotations

import dataclasses
import errno
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from crowd import crowd, wait_until

from core.errors import UserError
from serving import proving
from serving.reloading import reload
from serving.repository import default_in, first_listing
from serving.settings import Settings
from serving.state import State
from serving.watching import Watch

ROOT = Path(__file__).resolve().parents[2]
Encoded = Callable[..., bytes]
Save = Callable[..., Path]


class Watched:
    """A repository with the model ``a``, what a service of it lists, and its watch."""

    def __init__(self, folder: Path, save: Save) -> None:
        self.repository = folder / "repository"
        self.artifact = save(self.repository / "a" / "1", scale=0.05)
        self.settings = Settings(artifact=self.artifact, repository=self.repository, max_models=4)
        self.state = State(folder / "state")
        self.state.write(first_listing(self.settings))
        self.watch = Watch(self.settings, self.state)

    def look(self) -> list[str]:
        """Returns the models that are listed once a change has settled."""
        self.watch.look()
        self.watch.look()
        while self.watch.is_proving:
            time.sleep(0.01)
        self.watch.look()
        return [entry.reference for entry in self.state.read().entries]


@pytest.fixture
def watched(tmp_path: Path, save_artifact: Save) -> Watched:
    return Watched(tmp_path, save_artifact)


def test_models_come_change_and_go(watched: Watched, save_artifact: Save) -> None:
    assert watched.look() == ["a:1"]
    assert watched.state.read().revision == 0
    b = save_artifact(watched.repository / "b" / "onnx-fp32", scale=0.01)
    watched.watch.look()
    assert watched.state.read().revision == 0  # it may still be copied
    assert watched.look() == ["a:1", "b:onnx-fp32"]
    digest = watched.state.read().entries[1].digest
    save_artifact(b, scale=0.02)
    assert watched.look() == ["a:1", "b:onnx-fp32"]
    assert watched.state.read().entries[1].digest != digest
    save_artifact(watched.repository / "a" / "10", scale=0.03)
    assert watched.look() == ["b:onnx-fp32", "a:10"]
    assert watched.state.read().current == {"a": "10", "b": "onnx-fp32"}
    shutil.rmtree(watched.repository / "b")
    assert watched.look() == ["a:10"]
    assert watched.state.read().revision == 5


def test_what_is_broken_is_not_taken(
    watched: Watched, save_artifact: Save, capsys: pytest.CaptureFixture[str]
) -> None:
    b = watched.repository / "b" / "onnx-fp32"
    save_artifact(b, logits=np.zeros((3, 3), np.float32))
    assert watched.look() == ["a:1"]
    assert "golden" in capsys.readouterr().err
    assert watched.look() == ["a:1"]
    assert capsys.readouterr().err == ""  # told once
    (b / "manifest.json").write_text("{")
    assert watched.look() == ["a:1"]
    assert str(b) in capsys.readouterr().err
    save_artifact(b)
    assert watched.look() == ["a:1", "b:onnx-fp32"]


def test_one_bad_folder_hinders_no_other(
    watched: Watched, save_artifact: Save, capsys: pytest.CaptureFixture[str]
) -> None:
    loop = save_artifact(watched.repository / "m" / "2") / "loop"
    loop.symlink_to(loop)
    assert watched.look() == ["a:1", "m:2"]
    picked = save_artifact(watched.repository / "p" / "onnx-fp32").parent / "choice.json"
    picked.write_text("{")
    save_artifact(watched.repository / "z" / "1")
    assert watched.look() == ["a:1", "m:2", "z:1"]
    assert str(picked) in capsys.readouterr().err
    assert watched.look() == ["a:1", "m:2", "z:1"]
    assert capsys.readouterr().err == ""  # told once
    names = [entry.reference for entry in first_listing(settings_of(watched)).entries]
    assert names == ["a:1", "m:2", "z:1"]
    assert str(picked) in capsys.readouterr().err
    picked.unlink()
    assert watched.look() == ["a:1", "m:2", "z:1", "p:onnx-fp32"]


def test_a_model_comes_once_its_pick_is_mended(watched: Watched, save_artifact: Save) -> None:
    picked = save_artifact(watched.repository / "p" / "1").parent / "choice.json"
    picked.write_text("{")
    assert watched.look() == ["a:1"]
    picked.unlink()
    assert watched.look() == ["a:1", "p:1"]


def test_a_broken_folder_is_no_default(watched: Watched) -> None:
    broken = watched.repository / "0" / "choice.json"
    broken.parent.mkdir()
    broken.write_text("{")
    assert default_in(watched.repository, None) == watched.artifact


def settings_of(watched: Watched) -> Settings:
    return dataclasses.replace(watched.settings, max_models=9)


def test_a_version_is_replaced_at_the_limit(
    watched: Watched, save_artifact: Save, capsys: pytest.CaptureFixture[str]
) -> None:
    watched.watch = Watch(dataclasses.replace(watched.settings, max_models=1), watched.state)
    save_artifact(watched.repository / "a" / "2", scale=0.03)
    assert watched.look() == ["a:2"]
    save_artifact(watched.repository / "b" / "1")
    assert watched.look() == ["a:2"]
    assert "1 models are loaded already" in capsys.readouterr().err


def test_the_default_goes_on_without_its_folder(
    watched: Watched, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(watched.repository / "a")
    assert watched.look() == ["a:1"]
    assert "is the default" in capsys.readouterr().err
    shutil.rmtree(watched.repository)
    for told in (1, 0):
        watched.watch.look()
        assert capsys.readouterr().err.count("cannot be watched") == told


def test_a_list_that_cannot_be_written_stays_and_is_tried_again(
    watched: Watched,
    save_artifact: Save,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    save_artifact(watched.repository / "b" / "onnx-fp32")
    with monkeypatch.context() as full:
        full.setattr("serving.state.write_whole", fail)
        assert watched.look() == watched.look() == ["a:1"]
        told = capsys.readouterr().err
        assert told.count("folder of temporary files: No space left on device") == 1
        assert "is taken" not in told
    assert watched.look() == ["a:1", "b:onnx-fp32"]
    assert "models: b:onnx-fp32 is taken" in capsys.readouterr().err


def test_a_reload_lists_what_the_new_workers_load(watched: Watched, save_artifact: Save) -> None:
    before = watched.state.read()
    assert reload(watched.settings, watched.state, lambda: False)
    assert watched.state.read() == before
    save_artifact(watched.artifact, scale=0.1)
    assert reload(watched.settings, watched.state, lambda: False)
    after = watched.state.read()
    assert after.revision == before.revision  # so that no worker that is replaced loads it first
    assert [each.digest for each in after.entries] != [each.digest for each in before.entries]


def test_a_reload_does_not_outlast_the_service(
    watched: Watched, save_artifact: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = watched.state.read()
    monkeypatch.setattr(proving, "_run_golden", lambda *_: time.sleep(60))
    save_artifact(watched.artifact, scale=0.1)
    began = False

    def ended() -> bool:
        nonlocal began
        if not began:  # the first look is before there is a golden batch
            began = True
            return False
        assert len(multiprocessing.active_children()) == 1
        return True

    reload(watched.settings, watched.state, ended)
    assert watched.state.read() == before
    assert multiprocessing.active_children() == []
    assert not reload(watched.settings, watched.state, lambda: True)


def test_a_change_waits_for_another(watched: Watched, save_artifact: Save) -> None:
    save_artifact(watched.repository / "b" / "onnx-fp32")
    with watched.state.locked():
        assert watched.look() == ["a:1"]
    # The process that ran the golden batch had inherited the lock, and ends a moment later.
    wait_until(lambda: watched.look() == ["a:1", "b:onnx-fp32"])


def test_no_look_waits_for_a_golden_batch(
    watched: Watched, save_artifact: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = multiprocessing.Event()
    run = proving._run_golden

    def slowly(answer: Connection, *arguments: Any) -> None:
        gate.wait(10)
        run(answer, *arguments)

    monkeypatch.setattr(proving, "_run_golden", slowly)
    save_artifact(watched.repository / "b" / "onnx-fp32")
    for _ in range(3):
        watched.watch.look()
    assert watched.watch.is_proving
    assert watched.state.read().revision == 0
    gate.set()
    assert watched.look() == ["a:1", "b:onnx-fp32"]


def test_what_changes_while_it_is_proved_is_proved_anew(
    watched: Watched, save_artifact: Save, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = watched.repository / "b" / "onnx-fp32"
    with monkeypatch.context() as patch:
        patch.setattr(proving, "_run_golden", lambda *_: time.sleep(60))
        save_artifact(b)
        watched.watch.look()
        watched.watch.look()
        assert len(multiprocessing.active_children()) == 1
        save_artifact(b, scale=0.02)
        watched.watch.look()
        assert multiprocessing.active_children() == []
    assert watched.look() == ["a:1", "b:onnx-fp32"]


def test_a_manifest_that_vanishes_while_it_is_read_is_not_taken(
    watched: Watched,
    save_artifact: Save,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    b = save_artifact(watched.repository / "b" / "onnx-fp32")
    with monkeypatch.context() as patch:
        patch.setattr("serving.repository.sha256", lambda _: (b / "gone").read_bytes())
        assert watched.look() == ["a:1"]
    told = capsys.readouterr().err
    assert f"error: {b}: cannot be read (No such file or directory: gone)" in told
    (b / "README.md").write_text("It is back.")
    assert watched.look() == ["a:1", "b:onnx-fp32"]


def test_watching_needs_a_repository(artifact_path: Path) -> None:
    with pytest.raises(UserError, match="REPOSITORY"):
        Settings(artifact=artifact_path, watch=True)


def test_a_service_follows_its_folder(
    tmp_path: Path,
    save_artifact: Save,
    encoded: Encoded,
    serve: Callable[..., Any],
    environment: dict[str, str],
) -> None:
    repository = tmp_path / "repository"
    soft = save_artifact(repository / "soft" / "onnx-fp32", scale=0.001)
    environment["POCKETNETS_WORKERS"] = "2"
    arguments = ["-m", "serving", "--repository", str(repository), "--watch"]
    with (
        serve(*arguments, cwd=ROOT, environment=environment) as server,
        httpx.Client(base_url=server.url, timeout=30) as client,
    ):

        def names() -> list[str]:
            return [each["name"] for each in client.get("/models").json()["models"]]

        assert names() == ["soft"]
        with crowd(server.port, encoded("red"), 3) as clients:
            clients.wait_for(10)
            save_artifact(soft, scale=0.05)
            save_artifact(repository / "more" / "onnx-fp32", scale=0.05)
            # Both come in one change; either worker may answer.
            wait_until(lambda: names() == names() == names() == ["soft", "more"], 0.1)
            wait_until(lambda: clients.outcomes[-1][2]["predictions"][0]["score"] > 0.9)
            clients.wait_for(10)
        assert clients.counts.keys() == {200}
        assert clients.outcomes[0][2]["predictions"][0]["score"] < 0.5
        shutil.rmtree(repository / "more")
        wait_until(lambda: names() == names() == names() == ["soft"], 0.1)
        assert server.stop(signal.SIGTERM) == 0
