from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import pytest

import bench.latency.compare
import bench.latency.measure
from artifact.artifact import Artifact, write_artifact
from artifact.runtimes.base import Runtime, load_runtime
from bench.latency.command import Compare
from bench.latency.compare import Change, compare, rerun, sure_ends
from bench.latency.record import Row, Sweep, write_sweep
from bench.measure.spread import Spread
from bench.measure.timing import Plan, measure
from core.errors import UserError

PLAN = Plan(count=24, seconds=0, rounds=12)


@pytest.mark.parametrize(
    ("turns", "ends"),
    [
        ([1.0, 3.0, 2.0, 5.0, 4.0], (1.0, 5.0)),
        ([float(turn) for turn in range(12)], (1.0, 10.0)),  # 2 * 13 / 4096 is below 1 %
        ([float(turn) for turn in range(30)], (7.0, 22.0)),
    ],
)
def test_the_ends_are_wrong_once_in_a_hundred(
    turns: list[float], ends: tuple[float, float]
) -> None:
    assert sure_ends(turns) == ends


class Machine:
    """Runtimes that take what they are said to, by a clock of their own.

    Attributes:
        seconds: of a call, by the folder of all artifacts.
        calls: how often each was called.
        factor: of all that is done now.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.seconds = {"before": 2e-3, "artifacts": 2e-3}
        self.calls = dict.fromkeys(self.seconds, 0)

    def clock(self) -> float:
        return self.now

    def load(self, name: str, artifact: Artifact, **options: Any) -> Runtime:
        machine, real = self, load_runtime(name, artifact, **options)
        root = artifact.path.parents[1].name

        class Slowed(Runtime):
            def __call__(self, pixels: Any) -> Any:
                machine.calls[root] += 1
                # Half a second long the machine is twice as fast, then twice as slow.
                weather = 2.0 if int(2 * machine.now) % 2 else 0.5
                machine.now += machine.seconds[root] * weather
                return real(pixels)

            def close(self) -> None:
                real.close()

        return Slowed()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine()
    monkeypatch.setattr(bench.latency.measure, "load_runtime", machine.load)
    monkeypatch.setattr(
        bench.latency.compare,
        "measure",
        partial(measure, clock=machine.clock, cpu_clock=machine.clock),
    )
    return machine


@pytest.fixture
def two_versions(
    tmp_path: Path,
    make_artifact: Callable[..., Artifact],
    make_row: Callable[..., Row],
    make_sweep: Callable[..., Sweep],
) -> tuple[Sweep, Sweep]:
    """Two runs: ``artifacts`` holds what the second measured, ``before`` what the first did."""
    artifact = make_artifact()
    shutil.copytree(tmp_path / "artifacts", tmp_path / "before")
    old = Artifact.load(tmp_path / "before" / "tiny-toy" / "onnx-fp32")
    graph = onnx.load(old.model_file)
    graph.doc_string = "an older version"
    onnx.save(graph, old.model_file)
    old = write_artifact(old, *old.golden())
    rows = [
        make_row(ms=2.0, sha256=one.sha256s["model.onnx"], macs=one.macs) for one in (old, artifact)
    ]
    return make_sweep(rows[0]), make_sweep(rows[1])


def only(sweeps: tuple[Sweep, Sweep]) -> Change:
    (change,) = compare(*sweeps).changes
    return change


@pytest.mark.parametrize(
    ("slower", "verdict"), [(1.5, "slower"), (1.0, "same"), (1.02, "same"), (0.6, "faster")]
)
def test_both_versions_take_turns(
    tmp_path: Path,
    machine: Machine,
    two_versions: tuple[Sweep, Sweep],
    slower: float,
    verdict: str,
) -> None:
    machine.seconds["artifacts"] *= slower
    change = only(two_versions)
    (again,) = rerun([change], tmp_path / "before", tmp_path / "artifacts", plan=PLAN)
    assert isinstance(again.times, Spread)
    assert again.times.median == pytest.approx(slower, rel=0.2)
    assert again.verdict == verdict
    assert min(machine.calls.values()) >= PLAN.count


def test_the_command_measures_what_moved_or_changed(
    tmp_path: Path,
    machine: Machine,
    two_versions: tuple[Sweep, Sweep],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for sweep, name in zip(two_versions, ("a", "b"), strict=True):
        write_sweep(sweep, tmp_path / name)
    machine.seconds["artifacts"] *= 1.5
    command = Compare(
        before=tmp_path / "a",
        after=tmp_path / "b",
        rerun=True,
        artifacts=tmp_path / "artifacts",
        artifacts_before=tmp_path / "before",
        seconds=0.1,
    )
    assert command() == 1
    assert "tiny-toy: onnx-fp32 in ort-cpu" in capsys.readouterr().out
    machine.seconds["artifacts"] = machine.seconds["before"]
    assert command() == 0


def test_nothing_moved_is_nothing_to_measure(
    tmp_path: Path, two_versions: tuple[Sweep, Sweep], capsys: pytest.CaptureFixture[str]
) -> None:
    write_sweep(two_versions[0], tmp_path / "a")
    assert Compare(before=tmp_path / "a", after=tmp_path / "a", rerun=True)() == 0
    assert "there is nothing to measure again" in capsys.readouterr().out


def test_artifacts_that_are_not_at_hand_are_named(
    tmp_path: Path, two_versions: tuple[Sweep, Sweep]
) -> None:
    change = only(two_versions)
    with pytest.raises(UserError, match=r"tiny-toy/onnx-fp32 as it was measured .* not at hand"):
        rerun([change], tmp_path / "artifacts", tmp_path / "artifacts", plan=PLAN)


def test_what_cannot_be_measured_again_keeps_its_verdict(
    tmp_path: Path, machine: Machine, two_versions: tuple[Sweep, Sweep]
) -> None:
    change = only(two_versions)
    lost = replace(
        change, verdict="slower", before=replace(change.before, folder="lost-toy/onnx-fp32")
    )
    first, second = rerun([change, lost], tmp_path / "before", tmp_path / "artifacts", plan=PLAN)
    assert isinstance(first.times, Spread)
    assert "not at hand" in str(second.times)
    assert second.verdict == "slower"


def test_two_versions_of_a_library_are_not_measured_again(
    tmp_path: Path,
    make_row: Callable[..., Row],
    make_sweep: Callable[..., Sweep],
    capsys: pytest.CaptureFixture[str],
) -> None:
    controls = [make_row(ms=3.0, runtime="torch", batch=batch) for batch in (1, 2, 4)]
    moved = [replace(row, latency=make_row(ms=3.001).latency) for row in controls]
    for name, rows, version in (
        ("a", [*controls, make_row(ms=2.0)], "1"),
        ("b", [*moved, make_row(ms=4.0)], "2"),
    ):
        sweep = make_sweep(*rows)
        versions = {"torch": "2", "onnxruntime": version}
        machine = replace(sweep.machine, versions=versions)
        write_sweep(replace(sweep, machine=machine), tmp_path / name)
    assert Compare(before=tmp_path / "a", after=tmp_path / "b", rerun=True)() == 1
    printed = capsys.readouterr().out
    assert "not measured again: 1 candidates, such as tiny-toy: onnx-fp32 in ort-cpu" in printed
    assert "onnxruntime 1, then 2" in printed
