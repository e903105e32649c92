"""What is said, and what stays, where an export cannot go on or should not be used."""

from __future__ import annotations

import dataclasses
import errno
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from artifact.artifact import Artifact
from export import build, network
from training.checkpoint import Checkpoint, load_checkpoint


def test_a_full_disk_is_one_line_and_what_was_made_stays(
    in_trained: Path,
    tmp_path: Path,
    artifact_path: Path,
    command: Callable[..., subprocess.CompletedProcess[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def made(_: object, target: str, folder: Path) -> Artifact:
        (folder / "model.onnx").write_text("a part")
        if target == "onnx-fp16":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return Artifact.load(artifact_path)

    artifacts = tmp_path / "artifacts"
    monkeypatch.setattr(build, "ARTIFACTS", artifacts)
    monkeypatch.setattr(build._Builder, "build", made)
    flags = ["--model", "mobilenet_v3", "--data", "digits"]
    ran = command("export", "run", *flags, "--formats", "onnx-fp32", "onnx-fp16")
    folder = artifacts / "mobilenet_v3_large-digits"
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == (
        f"error: No space left on device: {folder / 'onnx-fp16'}"
    )
    assert "Traceback" not in ran.stderr
    assert [path.name for path in folder.iterdir()] == ["onnx-fp32"]


def test_a_network_at_chance_is_exported_with_a_warning(
    in_trained: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    network.load_network("mobilenet_v3", "digits")
    assert capfd.readouterr().err == ""

    def at_chance(path: Path) -> Checkpoint:
        confusion = torch.zeros(10, 10, dtype=torch.int64)
        confusion[:, 3] = 36  # one answer for everything
        return dataclasses.replace(load_checkpoint(path), confusion=confusion)

    monkeypatch.setattr(network, "load_checkpoint", at_chance)
    network.load_network("mobilenet_v3", "digits")
    assert "36 of 360 held-out images" in capfd.readouterr().err
