from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.latency.compare import compare
from bench.latency.record import read_sweep

RUNS = 11  # 55 pairs


@pytest.mark.slow
def test_real_runs_of_the_same_artifacts_seldom_alarm_and_a_slower_one_is_found(
    here: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    for model in ("mobilenet_v3_small", "mobilenet_v2"):
        formats = ("--formats", "onnx-fp32", "onnx-int8")
        exported = command("export", "run", "--model", model, "--weights", "random", *formats)
        assert exported.returncode == 0
    for run in range(RUNS):
        command("bench", "run", "--quick", "--fresh", "--out", str(run))
    sweeps = [read_sweep(here / str(run)) for run in range(RUNS)]
    found = [compare(*pair) for pair in itertools.combinations(sweeps, 2)]
    assert all(len(one.controls) == 4 for one in found)
    assert sum(bool(one.verdicts("slower")) for one in found) <= len(found) / 50

    small, large = (
        here / "artifacts" / f"{m}-random" for m in ("mobilenet_v3_small", "mobilenet_v2")
    )
    shutil.copytree(here / "artifacts", here / "before")
    shutil.rmtree(small / "onnx-fp32")
    shutil.copytree(large / "onnx-fp32", small / "onnx-fp32")
    command("bench", "run", "--quick", "--fresh", "--out", "slower")
    done = command("bench", "compare", "0", "slower", "--rerun", "--artifacts-before", "before")
    assert done.returncode == 1
    assert done.stdout.count("slower") > 1
