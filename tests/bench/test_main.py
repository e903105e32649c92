from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import bench.latency.measure
from artifact.artifact import Artifact
from artifact.store import read_pick
from bench.latency.command import Report, Run
from bench.latency.record import read_sweep
from core.errors import UserError


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
    run()
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
    tmp_path: Path,
    make_artifact: Callable[..., Artifact],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_artifact()
    make_artifact("other-toy")
    monkeypatch.setenv("COLUMNS", "200")
    folder, out = tmp_path / "artifacts", tmp_path / "out"
    run = Run(artifacts=folder, out=out, runtimes=("ort-cuda",), quick=True)
    with pytest.raises(UserError, match=r"^nothing could be measured: ort-cuda: no "):
        run()
    printed, said = capsys.readouterr()
    for network in ("tiny-toy", "other-toy"):
        assert re.search(rf"^{network} +onnx-fp32 +ort-cuda +1 +ort-cuda: no ", printed, re.M)
    assert "Nothing could be measured on this machine; the table says why not." in printed
    assert "leaves out" not in said
    assert (out / "latency.md").read_text().count("ort-cuda: no ") == 2
    # What an earlier run measured does not make this one a success.
    replace(run, runtimes=("ort-cpu",))()
    with pytest.raises(UserError, match=r"^nothing could be measured: ort-cuda: no "):
        run()
    with pytest.raises(UserError, match=r"^nothing .*: no artifact in .* runs in tensorrt; exp"):
        replace(run, runtimes=("tensorrt",))()


def test_a_quick_run_refuses_wrong_batches_too(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"batches are \[0\].*each must be at least 1"):
        Run(artifacts=tmp_path, quick=True, batches=(0,))()


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
        (["study", "nope"], "unknown study 'nope': did you mean grouped (there are ablation, "),
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
