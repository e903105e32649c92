"""Latency on a GPU, at all its places; the GPU is played by a runtime that tells its own time."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bench.latency.measure
from artifact.artifact import Artifact
from artifact.records import Logits
from artifact.runtimes.base import Runtime, RuntimeUnavailable, load_runtime
from artifact.runtimes.resident import GpuRuntime
from bench.latency.correlation import settings
from bench.latency.costs import Costs
from bench.latency.measure import run_sweep
from bench.latency.plan import Grid
from bench.latency.record import Row, Sweep, read_sweep, write_sweep
from bench.latency.sections import write_latency
from bench.latency.timing_scopes import gpu_section
from bench.measure.timing import Latency, Plan
from core.preprocess import Pixels

PLAN = Plan(count=5, seconds=0, rounds=5)


class PlayedResident:
    """A batch that takes a known time on a clock of its own; it counts what is open."""

    def __init__(self, runtime: Runtime, pixels: Pixels, seconds: float) -> None:
        self.answer = runtime(pixels)
        self.seconds = seconds
        self.closed = False

    def elapse(self) -> float:
        assert not self.closed
        return self.seconds

    def spoil(self) -> None:
        pass

    def logits(self) -> Logits:
        return self.answer

    def seconds_left(self) -> float:
        return 0.0

    def close(self) -> None:
        self.closed = True


class PlayedGpu(GpuRuntime):
    """ONNX Runtime on the CPU that says it is a GPU; it cannot capture batches of 4."""

    def __init__(self, artifact: Artifact, opened: list[PlayedResident]) -> None:
        self.name = "ort-cuda"
        self.inner = load_runtime("ort-cpu", artifact)
        self.opened = opened

    def __call__(self, pixels: Pixels) -> Logits:
        return self.inner(pixels)

    def resident(self, pixels: Pixels, *, graph: bool = False) -> Any:
        if graph and len(pixels) == 4:
            raise RuntimeUnavailable("ort-cuda: cannot capture that")
        one = PlayedResident(self.inner, pixels, 0.001 if graph else 0.002)
        self.opened.append(one)
        return one

    def close(self) -> None:
        assert all(one.closed for one in self.opened)
        self.inner.close()


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[PlayedResident]:
    """Makes ort-cuda the only runtime; what it has on the GPU is listed."""
    opened: list[PlayedResident] = []
    monkeypatch.setattr(bench.latency.measure, "list_runtimes", lambda *_: ["ort-cuda"])
    monkeypatch.setattr(
        bench.latency.measure,
        "load_runtime",
        lambda name, artifact, **_: PlayedGpu(artifact, opened),
    )
    return opened


def test_each_place_is_measured(
    tmp_path: Path, make_artifact: Callable[..., Artifact], opened: list[PlayedResident]
) -> None:
    make_artifact()
    grid = Grid(artifacts=tmp_path / "artifacts", batches=(1, 4))
    sweep = run_sweep(grid, PLAN)
    one, four = sorted(sweep.rows, key=lambda row: row.batch)
    for row in (one, four):
        assert row.latency is not None
        assert isinstance(row.device, Latency)
        assert row.device.samples == (0.002,) * 5
    assert isinstance(one.graph, Latency)
    assert one.graph.p50 == 0.001
    assert four.graph == "ort-cuda: cannot capture that"
    assert [one.closed for one in opened] == [True] * 3

    write_sweep(sweep, tmp_path)
    assert read_sweep(tmp_path).rows == sweep.rows
    again = run_sweep(grid, PLAN, known=sweep)
    assert again.rows == sweep.rows
    assert len(opened) == 3  # all of it was there already


def test_wrong_answers_on_the_gpu_are_a_reason(
    tmp_path: Path,
    make_artifact: Callable[..., Artifact],
    opened: list[PlayedResident],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_artifact()
    monkeypatch.setattr(PlayedResident, "logits", lambda self: self.answer + 100)
    (row,) = run_sweep(Grid(artifacts=tmp_path / "artifacts", batches=(1,)), PLAN).rows
    assert row.latency is not None
    assert str(row.device).startswith("ort-cuda: ")
    assert [one.closed for one in opened] == [True, True]


@pytest.fixture
def gpu_sweep(make_row: Callable[..., Row], make_sweep: Callable[..., Sweep]) -> Sweep:
    """Five networks in ort-cuda; graphs follow MACs, the rest does not."""

    def place(ms: float) -> Latency:
        latency = make_row(ms=ms).latency
        assert latency is not None
        return latency

    rows = []
    for index in range(1, 6):
        macs = index * 10**8
        costs = Costs(
            macs=macs,
            parameters=5,
            activations=7,
            bytes_moved=9,
            kernels=10,
            depthwise=0.1,
            pointwise=0.8,
            grouped=0.0,
        )
        rows.append(
            make_row(
                ms=8.0 - index,
                model=f"n{index}",
                folder=f"n{index}-toy/onnx-fp32",
                runtime="ort-cuda",
                macs=macs,
                costs=costs,
                device=place(2.0),
                graph=place(index / 10) if index < 5 else "ort-cuda: cannot capture that",
            )
        )
    return make_sweep(*rows)


def test_the_report_sets_the_places_side_by_side(gpu_sweep: Sweep, tmp_path: Path) -> None:
    section = gpu_section(gpu_sweep)
    assert section is not None
    (table,) = section.tables
    assert table.rows[0][2:] == ("ort-cuda", "1", "7.00", "2.00", "0.100", "")
    assert table.rows[4][2:] == (
        "ort-cuda",
        "1",
        "3.00",
        "2.00",
        "not measured",
        "ort-cuda: cannot capture that",
    )
    (sentence,) = section.sentences
    assert re.match(
        r"Batch 1: .*2\.39 \(1\.50 to 3\.50, 5 candidates\)"
        r".*9\.04 \(5\.00 to 20\.00, 4 candidates\)",
        sentence,
    )
    report = write_latency(gpu_sweep, tmp_path, [section])
    assert "On the GPU p50 ms" in report.html.read_text()
    assert "As a CUDA graph p50 ms" in report.markdown.read_text()


def test_each_place_is_a_setting_of_its_own(gpu_sweep: Sweep) -> None:
    found = {setting.title: len(rows) for setting, rows in settings(gpu_sweep).items()}
    assert found == {"ort-cuda": 5, "ort-cuda (device)": 5, "ort-cuda (graph)": 4}


def test_no_gpu_no_section(make_row: Callable[..., Row], make_sweep: Callable[..., Sweep]) -> None:
    assert gpu_section(make_sweep(make_row())) is None


def test_eager_on_the_gpu_is_what_its_runtimes_are_compared_with(
    make_row: Callable[..., Row], make_sweep: Callable[..., Sweep]
) -> None:
    fast = make_row(1.0, runtime="ort-cuda", precision="fp16")
    rows = (
        make_row(30.0, runtime="torch"),
        make_row(4.0, runtime="torch-cuda"),
        make_row(2.0, runtime="torch-cuda", precision="fp16"),
        make_row(10.0, runtime="ort-cpu"),
        fast,
    )
    sweep = make_sweep(*rows)
    assert str(sweep.times_torch(fast)) == "4.00 (4.00 to 4.00)"
    assert str(sweep.times_torch(rows[3])) == "3.00 (3.00 to 3.00)"
