from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import bench.layers.command
from artifact.artifact import Artifact

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_too_few_families_are_refused_before_anything_is_profiled(
    here: Path,
    make_artifact: Callable[..., Artifact],
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("profiled")

    monkeypatch.setattr(bench.layers.command, "profile", refuse)
    for network in ("mobilenet_v2", "timm/mobilenetv2_100", "timm/resnet18", "resnet50"):
        make_artifact(f"{network}-toy")
    done = command("bench", "predict")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "networks of 2 families (mobilenet_v2, resnet)" in done.stderr
    make_artifact("timm/vit_tiny_patch16_224-toy")
    with pytest.raises(AssertionError, match="profiled"):
        command("bench", "predict")
