from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bench.latency.measure
import bench.latency.plan
from artifact.artifact import Artifact
from artifact.runtimes.base import Runtime, RuntimeUnavailable, load_runtime
from bench.latency.measure import run_sweep
from bench.latency.plan import Grid, find_artifacts
from bench.latency.record import Row, Sweep
from bench.measure.spread import Spread
from bench.measure.timing import Plan
from core.conditions import Conditions
from core.errors import UserError

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

    def take(form: str, precision: str) -> list[str]:
        return [*(["torch"] if precision == "fp32" else []), "ort-cpu", "absent"]

    monkeypatch.setattr(bench.latency.measure, "list_runtimes", take)
    monkeypatch.setattr(bench.latency.measure, "load_runtime", load)
    return loaded


def rows_of(grid: Grid) -> dict[tuple[str, str | None, int], Row]:
    sweep = run_sweep(grid, PLAN)
    return {(row.folder, row.runtime, row.batch): row for row in sweep.rows}


def measured(sweep: Sweep) -> list[Row]:
    return [row for row in sweep.rows if row.latency]


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


def test_what_ties_for_the_fastest_takes_more_rounds(
    tmp_path: Path, make_artifact: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_artifact()
    tied: list[str] = ["torch"]

    def tied_for_fastest(sweep: Sweep) -> list[Row]:
        return [row for row in sweep.measured() if row.runtime in tied]

    monkeypatch.setattr(bench.latency.measure, "tied_for_fastest", tied_for_fastest)
    grid = Grid(artifacts=tmp_path / "artifacts", batches=(1,))
    sweep = run_sweep(grid, dataclasses.replace(PLAN, extra=3))
    turns = {row.runtime: sum(map(bool, row.latency.turns)) for row in sweep.rows if row.latency}
    assert turns == {"torch": 8, "ort-cpu": 5}
    assert all(row.latency.cpu for row in sweep.rows if row.latency)


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
    monkeypatch.setattr(bench.latency.measure, "list_runtimes", lambda *_: ["wrong", "crash"])
    monkeypatch.setattr(bench.latency.measure, "load_runtime", load)
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


def test_a_call_that_may_not_have_ended_is_not_timed(
    tmp_path: Path, make_artifact: Artifacts, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_artifact()

    class Later:
        """Logits that are computed when they are looked at, as a GPU's are."""

        def __init__(self, work: Callable[[], Any]) -> None:
            self.work = work

        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return self.work()

    class Unsynchronised:
        name = "unsynchronised"

        def __init__(self, runtime: Runtime) -> None:
            self.runtime = runtime

        def __call__(self, pixels: Any) -> Any:
            return Later(lambda: self.runtime(pixels))

        def __enter__(self) -> Unsynchronised:
            return self

        def __exit__(self, *error: object) -> None:
            pass

    monkeypatch.setattr(bench.latency.measure, "list_runtimes", lambda *_: ["unsynchronised"])
    monkeypatch.setattr(
        bench.latency.measure,
        "load_runtime",
        lambda *a, **o: Unsynchronised(load_runtime("ort-cpu", a[1])),
    )
    monkeypatch.setattr(bench.latency.measure, "check_golden", lambda runtime, artifact: None)
    (row,) = rows_of(Grid(artifacts=tmp_path / "artifacts", batches=(1,))).values()
    assert row.latency is None
    assert "returned Later, not an array on the host: its call may end before" in str(row.reason)


def test_what_was_measured_before_is_reused_until_the_artifact_changes(
    tmp_path: Path, make_artifact: Artifacts, runtimes: list[str]
) -> None:
    make_artifact()
    make_artifact("other-toy")
    whole = Grid(artifacts=tmp_path / "artifacts", batches=(1, 4))
    first = run_sweep(whole, PLAN)
    loaded = len(runtimes)
    reused = run_sweep(whole, PLAN, known=first)
    assert measured(reused) == measured(first)
    # What is not on this machine is looked for again, perhaps a second later.
    assert [(row.key, row.reason) for row in reused.rows] == [
        (row.key, row.reason) for row in first.rows
    ]
    assert len(runtimes) == loaded  # nothing was even opened

    one = dataclasses.replace(whole, model="tiny", batches=(1,))
    again = run_sweep(one, PLAN, known=first, fresh=True)
    old, new = ({row.key: row for row in sweep.rows} for sweep in (first, again))
    assert old.keys() == new.keys()
    changed = {key for key in old if old[key].latency != new[key].latency}
    fp32 = "tiny-toy/onnx-fp32"
    assert changed == {(fp32, "torch", 1, 1), (fp32, "ort-cpu", 1, 1)}

    stale = [dataclasses.replace(row, sha256="0" * 64) for row in first.rows]
    mended = run_sweep(one, PLAN, known=dataclasses.replace(first, rows=tuple(stale)))
    assert {row.batch for row in mended.rows if row.folder == fp32} == {1}  # no stale batch 4
    assert all(row.sha256 != "0" * 64 for row in mended.rows if row.folder == fp32)
    assert len([row for row in mended.rows if row.model == "other"]) == 6

    more = run_sweep(one, dataclasses.replace(PLAN, count=50), known=first)
    (row,) = (row for row in more.rows if row.key == (fp32, "ort-cpu", 1, 1))
    assert row.latency is not None
    assert row.latency.count == 50


def test_a_run_that_was_cut_off_goes_on(tmp_path: Path, make_artifact: Artifacts) -> None:
    make_artifact()
    grid = Grid(artifacts=tmp_path / "artifacts", batches=(1,))
    saved: list[Sweep] = []

    def stop(sweep: Sweep) -> None:
        saved.append(sweep)
        if len(saved) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(grid, PLAN, save=stop)
    cut = [row.latency for row in saved[-1].measured()]
    assert [len(latency.turns) for latency in cut if latency] == [3, 3]
    whole = run_sweep(grid, PLAN, known=saved[-1])
    for row in whole.measured():
        assert row.latency is not None
        assert len(row.latency.turns) == 5
        assert row.latency.turns[:3] in [latency.turns for latency in cut if latency]


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets an hour pass between one look at the clock and the next."""
    looks = itertools.count()
    real = bench.latency.measure.conditions()

    def conditions() -> Conditions:
        return dataclasses.replace(real, when=f"2026-11-22T{next(looks):02}:00:00+00:00")

    monkeypatch.setattr(bench.latency.measure, "conditions", conditions)


@pytest.mark.usefixtures("hours")
def test_rows_say_which_run_they_are_of(tmp_path: Path, make_artifact: Artifacts) -> None:
    make_artifact()
    grid = Grid(artifacts=tmp_path / "artifacts", batches=(1,))
    first = run_sweep(grid, PLAN)
    assert {row.when for row in first.measured()} == {first.before.when}
    torch, ours = sorted(first.measured(), key=lambda row: row.runtime == "ort-cpu")
    assert isinstance(first.times_torch(ours), Spread)

    only = dataclasses.replace(grid, batches=(1, 4))
    more = run_sweep(only, PLAN, known=first)
    assert {row.when for row in more.measured(batch=1)} == {first.before.when}  # reused
    assert {row.when for row in more.measured(batch=4)} == {more.before.when}
    longer = run_sweep(grid, dataclasses.replace(PLAN, count=50), known=first)
    assert {row.when for row in longer.measured()} == {longer.before.when}  # measured anew

    later = dataclasses.replace(torch, when="2026-11-22T23:00:00+00:00")
    mixed = dataclasses.replace(first, rows=(later, ours))
    assert "in another run" in str(mixed.times_torch(ours))


@pytest.mark.usefixtures("hours")
def test_a_run_goes_on_as_a_whole_or_not_at_all(tmp_path: Path, make_artifact: Artifacts) -> None:
    make_artifact()
    make_artifact("other-toy")
    whole = Grid(artifacts=tmp_path / "artifacts", batches=(1,))
    saved: list[Sweep] = []

    def stop(sweep: Sweep) -> None:
        saved.append(sweep)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_sweep(whole, PLAN, save=stop)
    (cut,) = saved
    assert {row.when for row in run_sweep(whole, PLAN, known=cut).measured()} == {cut.before.when}
    part = run_sweep(dataclasses.replace(whole, model="tiny"), PLAN, known=cut)
    old, new = ([r for r in part.measured() if r.model == model] for model in ("other", "tiny"))
    assert {row.when for row in old} == {cut.before.when}
    assert {row.when for row in new} == {part.before.when}
    turns = [row.latency.turns for row in cut.measured() if row.latency]
    assert all(row.latency and row.latency.turns[0] != turn[0] for row in new for turn in turns)


def test_each_number_of_threads_is_a_candidate(
    tmp_path: Path, make_artifact: Artifacts, runtimes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_artifact()
    monkeypatch.setattr(bench.latency.plan, "usable_cores", lambda: 2)
    sweep = run_sweep(Grid(artifacts=tmp_path / "artifacts", batches=(1,), threads=(1, 2)), PLAN)
    assert {(row.runtime, row.threads) for row in sweep.measured()} == {
        (runtime, threads) for runtime in ("torch", "ort-cpu") for threads in (1, 2)
    }
    assert "ort-cpu onnx-fp32 {'threads': 2}" in runtimes
    with pytest.raises(UserError, match="this machine has 2 usable cores"):
        Grid(artifacts=tmp_path, threads=(3,))


def test_only_the_runtimes_that_are_asked_for(
    tmp_path: Path, make_artifact: Artifacts, runtimes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_artifact()
    whole = Grid(artifacts=tmp_path / "artifacts", batches=(1,))
    first = run_sweep(whole, PLAN)
    monkeypatch.setattr(bench.latency.plan, "list_runtimes", lambda form=None: ["torch", "ort-cpu"])
    some = dataclasses.replace(whole, runtimes=("ort-cpu",))
    assert [row.runtime for row in run_sweep(some, PLAN).rows] == ["ort-cpu"]
    again = run_sweep(some, PLAN, known=first, fresh=True)
    assert {row.runtime for row in again.rows} == {"torch", "ort-cpu", "absent"}  # none is lost
    with pytest.raises(UserError, match="unknown runtime 'ortcpu': did you mean ort-cpu"):
        dataclasses.replace(whole, runtimes=("ortcpu",))


def test_compiling_is_asked_for(
    tmp_path: Path, make_artifact: Artifacts, runtimes: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_artifact()
    monkeypatch.setattr(bench.latency.measure, "list_runtimes", lambda *_: ["torch-compile"])
    grid = Grid(artifacts=tmp_path / "artifacts", batches=(1,))
    (row,) = run_sweep(grid, PLAN).rows
    assert "ask for it with: make bench ARGS=--compile" in str(row.reason)
    assert runtimes == []
    (row,) = run_sweep(dataclasses.replace(grid, compile=True), PLAN).rows
    assert row.latency is not None


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
    monkeypatch.setattr(bench.latency.measure, "list_runtimes", lambda *_: ["absent"])
    rows = rows_of(Grid(artifacts=tmp_path / "artifacts"))
    assert {row.latency for row in rows.values()} == {None}


def test_numbers_below_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="each must be at least 1"):
        Grid(artifacts=tmp_path, batches=(0,))
