from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import core.machine
import export.__main__ as main
from artifact.artifact import Artifact
from core.errors import UserError
from export.__main__ import Exported, List, Run, Show, Target, Verify
from export.build import Outcome
from export.elsewhere import Elsewhere
from export.jobs import Job
from export.table import outcome_table

Copy = Callable[..., Path]


def test_the_list_shows_every_artifact_and_refuses_a_damaged_one(
    in_trained: Path,
    artifacts: dict[str, Artifact],
    copied: Copy,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert List()() == 0
    out = capsys.readouterr().out
    assert all(name in out for name in artifacts)
    assert "passed on ort-cpu" in out
    assert "unverified: tensorrt-rtx: no" in out
    spoiled = copied("onnx-fp32")
    (spoiled / "model.onnx").write_bytes(b"")
    assert List(artifacts=spoiled.parent, json=True)() == 1
    (line,) = capsys.readouterr().out.splitlines()
    entry = json.loads(line)
    assert entry["path"] == str(spoiled)
    assert "its bytes are not those of the manifest" in entry["refused"]


def test_the_list_is_readable_by_programs(
    artifacts: dict[str, Artifact], capsys: pytest.CaptureFixture[str]
) -> None:
    List(artifacts=next(iter(artifacts.values())).path.parent, json=True)()
    entries = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {Path(entry["path"]).name for entry in entries} == set(artifacts)
    for entry in entries:
        artifact = artifacts[Path(entry["path"]).name]
        assert entry["refused"] is None
        assert entry["macs"] == artifact.macs
        assert (entry["metrics"] or {}).get("top1") == (
            artifact.metrics.top1 if artifact.metrics else None
        )


def test_agreement_of_random_weights_is_explained(artifacts: dict[str, Artifact]) -> None:
    int8 = artifacts["onnx-int8"]
    for weights, said in (("trained", False), ("random", True)):
        outcome = Outcome("onnx-int8", replace(int8, weights=weights))  # type: ignore[arg-type]
        assert bool(outcome_table([("tiny", [outcome])]).caption) == said


def test_show_says_what_it_is(
    artifacts: dict[str, Artifact], capsys: pytest.CaptureFixture[str]
) -> None:
    Show(artifacts["onnx-int8"].path)()
    out = capsys.readouterr().out
    for text in (
        "mobilenet_v3_large, trained on digits",
        "ONNX opset 20",
        "QuantizeLinear",
        "agreement",
        "at least 95.0%",
        "model.onnx",
        "not in int8",
        "images: MinMax",
    ):
        assert text in out, text
    Show(artifacts["tensorrt_rtx-fp16"].path)()
    out = capsys.readouterr().out
    for text in ("unverified: ", "model.engine", "HardSwish"):
        assert text in out, text


def test_verify_prints_the_gates(
    copied: Copy, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copied()
    Verify(folder)()
    out = capsys.readouterr().out
    assert "with the golden batch on 8 images" in out
    assert out.splitlines()[-1].startswith(f"{folder}: passed, against its golden batch")


def test_only_an_engine_is_built_again(copied: Copy) -> None:
    with pytest.raises(UserError, match="onnx-fp32"):
        Verify(copied(), rebuild=True)()


def test_a_pushed_artifact_is_in_the_model_store_once_and_loads_from_there(
    copied: Copy, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # A process of its own: BentoML reads where its store is when it is imported.
    import os
    import subprocess

    folder = copied("onnx-int8")
    environment = {**os.environ, "BENTOML_HOME": str(here / "store")}
    command = [sys.executable, "-m", "export", "push", str(folder)]
    root = Path(__file__).parents[2]
    outputs = [
        subprocess.run(
            command, env=environment, cwd=root, capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for _ in range(2)
    ]
    assert outputs[0][0].startswith("mobilenet_v3_large-digits-onnx-int8:")
    assert outputs[1][0] == f"{outputs[0][0]} was there already"
    assert outputs[0][1] == outputs[1][1]
    stored = Artifact.load(Path(outputs[0][1]))
    assert stored.path.is_relative_to(here / "store")
    assert stored.sha256s == Artifact.load(folder).sha256s


@pytest.mark.parametrize("vnni", [False, True])
def test_int8_is_made_for_the_cpus_that_were_asked_for(
    vnni: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def export(job: Job, elsewhere: Elsewhere) -> Exported:
        asked.append(job.options.weight_bits)
        return [("a-b", [])]

    monkeypatch.setattr(core.machine, "adds_in_32_bits", lambda: vnni)
    monkeypatch.setattr(main, "_export_one", export)
    targets: tuple[Target, ...] = ("avx2", "this", "arm", "vnni")
    for target in targets:
        run = Run(model="mobilenet_v2", target=target)
        if vnni or target in ("avx2", "this"):
            run()
        else:
            with pytest.raises(UserError, match=f"--target {target}: .* has no VNNI"):
                run()
    assert asked == ([7, 8, 8, 8] if vnni else [7, 7])


def test_a_log_gets_a_line_for_each_artifact_when_it_is_done(
    artifacts: dict[str, Artifact],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines: list[list[str]] = []  # of the log, before each next artifact is begun

    def build(*_: object) -> Iterator[Outcome]:
        for outcome in (
            Outcome("onnx-fp32", artifact=artifacts["onnx-fp32"]),
            Outcome("onnx-int8", reason="too far off", failed=True),
            Outcome("coreml-fp16", reason="no coremltools"),
        ):
            yield outcome
            lines.append(capsys.readouterr().err.splitlines())

    monkeypatch.setattr("export.build.build_artifacts", build)
    network = SimpleNamespace(model="mobilenet_v2", data="digits")
    monkeypatch.setattr("export.network.load_network", lambda *_: network)
    assert Run(model="mobilenet_v2", data="digits")() == 1
    assert lines == [["onnx-fp32: done"], ["onnx-int8: failed"], ["coreml-fp16: not built"]]


@pytest.mark.parametrize(("formats", "status"), [((), 0), (("phone",), 0), (("onnx-int8",), 1)])
def test_a_format_that_was_asked_for_by_name_must_be_built(
    formats: tuple[str, ...],
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    missing = Outcome("onnx-int8", reason="not on this machine")
    monkeypatch.setattr(main, "_export_one", lambda job, elsewhere: [("a-b", [missing])])
    assert Run(model="mobilenet_v2", formats=formats)() == status
    assert "artifacts/a-b" not in capsys.readouterr().out


def test_exporting_all_goes_on_where_it_stopped(
    in_trained: Path,
    artifacts: dict[str, Artifact],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    names = ("mobilenet_v3_large", "mobilenet_v2")
    monkeypatch.setattr("export.__main__.DEFAULT_NETWORKS", names)
    when = {name: (a.path / "manifest.json").stat().st_mtime_ns for name, a in artifacts.items()}
    assert Run(model="all", data="digits", workers=1)() == 1
    captured = capsys.readouterr()
    assert "mobilenet_v3_large: done, 4 kept" in captured.err
    assert "mobilenet_v2: failed" in captured.err
    assert "failed: no run of mobilenet_v2 on digits" in captured.out.replace("\n", " ")
    for name, artifact in artifacts.items():
        assert (artifact.path / "manifest.json").stat().st_mtime_ns == when[name]
