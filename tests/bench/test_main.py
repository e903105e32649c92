from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import bench.latency.measure
from artifact.artifact import Artifact
from artifact.store import read_pick
from bench.latency.command import Report, Run
from bench.latency.record import read_sweep


def test_run_measures_picks_and_reports(
    tmp_path: Path,
    make_artifact: Callable[..., Artifact],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_artifact()
    monkeypatch.setattr(bench.latency.measure, "list_runtimes", lambda *_: ["ort-cpu"])
    monkeypatch.setenv("COLUMNS", "200")
    artifacts, out = tmp_path / "artifacts", tmp_path / "reports"
    run = Run(artifacts=artifacts, out=out, count=5, seconds=0, rounds=5, batches=(1, 2))
    assert run() == 0
    printed = capsys.readouterr().out
    assert "tiny-toy is best served as onnx-fp32 in ort-cpu" in printed
    assert printed.splitlines()[-1] == str(out / "latency.html")
    assert sorted(file.name for file in out.iterdir()) == [
        "latency.html",
        "latency.jsonl",
        "latency.md",
        "latency.png",
        "layers.jsonl",
        "peaks.json",
    ]
    choice = read_pick(artifacts / "tiny-toy")
    assert choice is not None
    assert choice.runtime == "ort-cpu"
    Report(out=out)()
    assert capsys.readouterr().out == printed  # the same rows say the same again


def test_a_run_that_can_measure_nothing_says_why_and_fails(
    tmp_path: Path, make_artifact: Callable[..., Artifact], capsys: pytest.CaptureFixture[str]
) -> None:
    make_artifact()
    run = Run(artifacts=tmp_path / "artifacts", out=tmp_path / "out", runtimes=("ort-cuda",))
    assert run() == 1
    assert "not measured here (ort-cuda: no " in capsys.readouterr().out


@pytest.mark.parametrize("network", ["tiny-toy", "timm/tiny-toy"])
def test_the_folder_of_one_network_is_measured_alone_and_by_its_name(
    network: str,
    tmp_path: Path,
    make_artifact: Callable[..., Artifact],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make_artifact(network).path.parent
    make_artifact("other-toy")
    monkeypatch.setattr(bench.latency.measure, "list_runtimes", lambda *_: ["ort-cpu"])
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(folder)
    Run(artifacts=Path(), out=tmp_path / "reports", quick=True)()
    printed, said = capsys.readouterr()
    assert "--quick leaves out torch, torch-cuda, openvino\n" in said
    assert f"{network} is best served as onnx-fp32 in ort-cpu" in printed
    assert "other-toy" not in printed
    assert read_pick(folder) is not None
    (row,) = read_sweep(tmp_path / "reports").rows
    assert row.folder == f"{network}/onnx-fp32"  # as where all networks are measured


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run"], "artifacts: no artifacts here; make some with: make export MODEL=mobilenet_v3"),
        (["report"], "reports/latency.jsonl: no such file; measure first with: make bench"),
        (["timer", "nowhere"], "nowhere: not an artifact, it holds no manifest.json; make one"),
        (["load", "--images", "x.png"], "x.png: no image there"),
        (["load", "--url", "http://example.com/"], "url is 'http://example.com/': load is sent"),
        (["study", "servers"], "no artifact to serve: name its folder with --artifact"),
    ],
)
def test_a_mistake_ends_in_one_line(
    here: Path,
    command: Callable[..., subprocess.CompletedProcess[str]],
    arguments: list[str],
    line: str,
) -> None:
    done = command("bench", *arguments)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith(f"error: {line}")
    assert done.stderr.count("\n") == 1
    assert list(here.iterdir()) == []
