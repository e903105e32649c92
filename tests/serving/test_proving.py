"""The golden batch in a process of its own: it ends in time, and leaves nothing behind."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from artifact.artifact import Artifact
from artifact.opening import open_artifact
from core.errors import UserError
from serving import proving
from serving.listing import Entry
from serving.proving import Proof
from serving.repository import entry_of
from serving.settings import Settings

Prove = Callable[[], Proof]


@pytest.fixture
def entry(make_artifact: Callable[..., Path]) -> Entry:
    path = make_artifact()
    return entry_of(path, Settings(artifact=path))


@pytest.fixture
def prove(entry: Entry) -> Iterator[Prove]:
    """Returns what proves ``entry``; no process may be left at the end."""
    settings = Settings(artifact=entry.artifact)
    yield lambda: Proof(lambda: entry, settings)
    assert multiprocessing.active_children() == []


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Returns an event that is set once a golden batch runs, which never ends."""
    running = multiprocessing.Event()

    def hang(*_: Any) -> None:
        running.set()
        while True:
            time.sleep(60)

    monkeypatch.setattr(proving, "_run_golden", hang)
    return running


def test_a_golden_batch_that_comes_out_right_proves_a_model(entry: Entry, prove: Prove) -> None:
    assert prove().entry() == entry


def test_one_that_hangs_is_ended_in_time(
    prove: Prove, hanging: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proving, "_PATIENCE_S", 1)
    with pytest.raises(UserError, match=r"onnx-fp32: its golden batch took more than 1 s"):
        prove().entry()


def test_one_that_nobody_waits_for_is_ended(prove: Prove, hanging: Any) -> None:
    proof = prove()
    process = proof._process
    assert process is not None
    assert hanging.wait(30)
    assert not proof.is_done
    proof.stop()
    assert process.exitcode == -signal.SIGKILL


def test_one_that_hangs_ends_with_the_service(prove: Prove, hanging: Any) -> None:
    before = signal.signal(signal.SIGTERM, lambda *_: None)  # as the supervisor's handler returns
    try:
        process = prove()._process
        assert process is not None
        assert hanging.wait(30)
        process.terminate()  # as multiprocessing does with daemons at the end
        process.join(30)
        assert process.exitcode == -signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)


def test_one_that_ends_by_itself_proves_nothing(
    prove: Prove, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(proving, "_run_golden", lambda *_: os._exit(1))
    with pytest.raises(UserError, match="ended by itself"):
        prove().entry()


@pytest.mark.parametrize("when", ["check", "open_artifact", "open_runtime"])
def test_a_folder_that_vanishes_meanwhile_is_refused(
    entry: Entry, prove: Prove, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    away = tmp_path / "away"
    do = getattr(proving, when)

    def vanishing(*arguments: Any, **options: Any) -> Any:
        if when == "open_runtime":
            entry.artifact.rename(away)
            return do(*arguments, **options)
        done = do(*arguments, **options)
        entry.artifact.rename(away)
        return done

    monkeypatch.setattr(proving, when, vanishing)
    with pytest.raises(UserError, match=str(entry.artifact)) as caught:
        prove().entry()
    assert "ended by itself" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_vanishes_while_it_is_read_is_one_line(
    entry: Entry, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = open_artifact(entry.artifact)

    def vanish(folder: Path, name: str, *_: Any) -> Any:
        shutil.rmtree(folder, ignore_errors=True)
        return (folder / name).read_bytes()

    monkeypatch.setattr("artifact.artifact.read_array", vanish)
    told = (
        f"{entry.artifact}: cannot be read (No such file or directory: golden_pixels.npy); "
        "leave the folder where it is until it is loaded"
    )
    with pytest.raises(UserError) as caught:
        open_artifact(entry.artifact)
    assert str(caught.value) == told
    with pytest.raises(UserError, match=r"cannot be read .*golden_pixels"):
        Artifact.golden(artifact)
    with pytest.raises(UserError, match=r"cannot be read .*model.onnx"):
        _ = artifact.size
