from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bench.sweep
from bench.rows import Row
from bench.sweep import Grid, find_artifacts, run_sweep
from bench.timing import Plan
from export.artifact import Artifact
from export.runtimes.base import Runtime, RuntimeUnavailable, load_runtime
from models.errors import UserError

Artifacts = Callable[..., Artifact]
PLAN = Plan(count=5, seconds=0, rounds=5)


@pytest.fixture(autouse=True)
def runtimes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """ONNX Runtime, for real; ``torch`` played by it; and one that is not installed."""
    loaded: list[str] = []

    def load(name: str, artifact: Artifact, **options: Any) -> Runtime:
        if name == "absent":
            raise RuntimeUnavailable("absent: not on this machine; pip install absent")
        loaded.append(f"{name} {artifact.name} {options}")
        return load_runtime("ort-cpu", artifact, **options)

    monkeypatch.setattr(bench.sweep, "list_runtimes", lambda form: ["torch", "ort-cpu", "absent"])
    monkeypatch.setattr(bench.sweep, "load_runtime", load)
    return loaded


def rows_of(grid: Grid) -> dict[tuple[str, str | None, int], Row]:
    sweep = run_sweep(grid, PLAN)
    return {(row.folder, row.runtime, row.batch): row for row in sweep.rows}


def test_every_candidate_is_a_row(
    tmp_path: Path, make_artifact: Artifacts, runtimes: list[str]
) -> None:
    artifact = make_artifact()
    make_artifact(name="onnx-int8")
    rows = rows_of(Grid(artifacts=tmp_path / "artifacts", batches=(1, 4)))
    fp32, int8 = "tiny-toy/onnx-fp32", "tiny-toy/onnx-int8"
    assert set(rows) == {
        *((fp32, runtime, batch) for runtime in ("torch", "ort-cpu", "absent") for batch in (1, 4)),
        *((int8, runtime, batch) for runtime in ("ort-cpu", "absent") for batch in (1, 4)),
    }
    row = rows[fp32, "ort-cpu", 4]
    assert row.latency is not None
    assert row.latency.count >= 5
    assert row.reason is None
    assert (row.macs, row.sha256) == (3072, artifact.sha256s["model.onnx"])
    assert row.metrics is not None
    assert row.metrics.top1 == 0.75
    absent = rows[fp32, "absent", 1]
    assert absent.latency is None
    assert absent.reason == "absent: not on this machine; pip install absent"
    assert runtimes.count("torch onnx-fp32 {'threads': 1}") == 1


def test_a_damaged_artifact_is_a_row_beside_sound_ones(
    tmp_path: Path, make_artifact: Artifacts
) -> None:
    make_artifact()
    damaged = make_artifact(name="onnx-fp16")
    with damaged.model_file.open("ab") as file:
        file.write(b"x")
    (tmp_path / "artifacts" / "tiny-toy" / "onnx-int8").mkdir()
    rows = rows_of(Grid(artifacts=tmp_path / "artifacts", batches=(1,)))
    assert "sha256 differs" in str(rows["tiny-toy/onnx-fp16", None, 1].reason)
    empty = rows["tiny-toy/onnx-int8", None, 1]
    assert "holds no manifest.json" in str(empty.reason)
    assert (empty.model, empty.data, empty.macs) == ("tiny", "toy", None)
    assert rows["tiny-toy/onnx-fp32", "ort-cpu", 1].latency is not None


def test_wrong_answers_and_crashes_are_not_timed(
    tmp_path: Path, make_artifact: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_artifact()

    class Wrong:
        name = "wrong"

        def __init__(self, runtime: Runtime) -> None:
            self.runtime = runtime

        def __call__(self, pixels: Any) -> Any:
            return self.runtime(pixels) + 100

        def __enter__(self) -> Wrong:
            return self

        def __exit__(self, *error: object) -> None:
            closed.append(True)

    def load(name: str, artifact: Artifact, **options: Any) -> Any:
        if name == "crash":
            raise RuntimeError("native code gave up\nat line 3")
        return Wrong(load_runtime("ort-cpu", artifact, **options))

    closed: list[bool] = []
    monkeypatch.setattr(bench.sweep, "list_runtimes", lambda form: ["wrong", "crash"])
    monkeypatch.setattr(bench.sweep, "load_runtime", load)
    rows = rows_of(Grid(artifacts=tmp_path / "artifacts", batches=(1,)))
    assert "does not reproduce the golden batch" in str(
        rows["tiny-toy/onnx-fp32", "wrong", 1].reason
    )
    assert closed == [True]
    crash = rows["tiny-toy/onnx-fp32", "crash", 1]
    assert crash.reason == "RuntimeError: native code gave up"


def test_a_batch_the_artifact_does_not_take_is_a_reason(
    tmp_path: Path, make_artifact: Artifacts
) -> None:
    make_artifact()
    rows = rows_of(Grid(artifacts=tmp_path / "artifacts", batches=(1, 9)))
    assert "takes 1 to 8 images" in str(rows["tiny-toy/onnx-fp32", "ort-cpu", 9].reason)
    assert rows["tiny-toy/onnx-fp32", "ort-cpu", 1].latency is not None


def test_filters_choose_by_network_and_data(tmp_path: Path, make_artifact: Artifacts) -> None:
    for network in ("tiny-toy", "tiny-digits", "mobilenet_v3_large-digits", "timm/some_net-toy"):
        make_artifact(network)
    root = tmp_path / "artifacts"

    def found(**wanted: str) -> list[str]:
        folders = find_artifacts(Grid(artifacts=root, **wanted))  # type: ignore[arg-type]
        return [folder.parent.relative_to(root).as_posix() for folder in folders]

    assert len(found()) == 4
    assert found(model="tiny") == ["tiny-digits", "tiny-toy"]
    assert found(model="mobilenet_v3") == ["mobilenet_v3_large-digits"]
    assert found(data="toy") == ["timm/some_net-toy", "tiny-toy"]
    assert found(model="tiny", data="toy") == ["tiny-toy"]
    with pytest.raises(UserError, match=r"no artifacts of tyni-toy: did you mean tiny-toy"):
        found(model="tyni", data="toy")


def test_no_artifacts_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="make export MODEL=mobilenet_v3 DATA=digits"):
        run_sweep(Grid(artifacts=tmp_path / "none"), PLAN)


def test_nothing_that_runs_is_still_a_sweep(
    tmp_path: Path, make_artifact: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_artifact()
    monkeypatch.setattr(bench.sweep, "list_runtimes", lambda form: ["absent"])
    rows = rows_of(Grid(artifacts=tmp_path / "artifacts"))
    assert {row.latency for row in rows.values()} == {None}


def test_numbers_below_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="each must be at least 1"):
        Grid(artifacts=tmp_path, batches=(0,))
