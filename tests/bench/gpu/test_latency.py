"""Latency network by network, in a runtime on the CPU: what fails is a reason of that network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import bench.gpu.latency
from artifact.artifact import Artifact
from bench.gpu.latency import COMPILED, Piece, pieces, run
from bench.gpu.process import Budget
from bench.latency.record import Sweep, read_sweep
from bench.measure.timing import Plan
from core.errors import UserError
from models.registry import DEFAULT_NETWORKS

PLAN = Plan(count=5, seconds=0, limit=0.1, rounds=5)


def piece(model: str, *batches: int) -> Piece:
    return Piece(model=model, runtimes=("ort-cpu",), batches=batches)


def measured(tmp_path: Path, *todo: Piece, seconds: float = 60) -> tuple[str, Sweep]:
    artifacts = tmp_path / "artifacts"
    said = run(tmp_path, Budget(seconds), todo=todo, artifacts=artifacts, plan=PLAN)
    return said, read_sweep(tmp_path)


def test_each_piece_adds_its_rows(tmp_path: Path, make_artifact: Callable[..., Artifact]) -> None:
    for network in ("a-random", "b-random"):
        make_artifact(network)
    said, sweep = measured(tmp_path, piece("a", 1), piece("b", 1), piece("a", 2, 4))
    keys = [(row.model, row.batch) for row in sweep.measured()]
    assert sorted(keys) == [("a", 1), ("a", 2), ("a", 4), ("b", 1)]
    assert said == "4 of 4 candidates of 2 networks measured"
    _, again = measured(tmp_path, piece("a", 1), piece("b", 1))
    assert {row.key: row.latency for row in again.rows} == {
        row.key: row.latency for row in sweep.rows
    }


def test_a_network_that_fails_leaves_the_others(
    tmp_path: Path, make_artifact: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_artifact("a-random")
    make_artifact("b-random")
    real = bench.gpu.latency.run_sweep

    def fails(grid: object, plan: Plan, known: Sweep | None) -> Sweep:
        if getattr(grid, "model", "") == "a":
            raise RuntimeError("CUDA out of memory")
        return real(grid, plan, known=known)  # type: ignore[arg-type]

    monkeypatch.setattr(bench.gpu.latency, "run_sweep", fails)
    said, sweep = measured(tmp_path, piece("a", 1), piece("b", 1), piece("lost", 1))
    assert [row.model for row in sweep.measured()] == ["b"]
    reasons = {(row.model, row.precision): str(row.reason) for row in sweep.rows if row.reason}
    assert reasons["a", "fp16"] == reasons["a", "fp32"] == "RuntimeError: CUDA out of memory"
    assert "no artifacts of lost-random" in reasons["lost", "fp32"]
    assert said.startswith("1 of 5 candidates of 1 networks measured; not measured: RuntimeError")
    assert said.endswith("and 1 other reasons")


def test_what_there_is_no_time_for_is_a_row(
    tmp_path: Path, make_artifact: Callable[..., Artifact]
) -> None:
    make_artifact("a-random")
    with pytest.raises(UserError, match=r"^0 of 4 candidates of 0 networks measured; not measured"):
        measured(tmp_path, piece("a", 1, 128), seconds=0)
    sweep = read_sweep(tmp_path)
    assert [(row.precision, row.batch, row.reason) for row in sweep.rows] == [
        (precision, batch, "no time left (0 s of 0)")
        for precision in ("fp16", "fp32")
        for batch in (1, 128)
    ]
    _, later = measured(tmp_path, piece("a", 1))
    assert [(row.precision, row.batch) for row in later.measured()] == [("fp32", 1)]
    assert {row.reason for row in later.rows if row.batch == 128} == {"no time left (0 s of 0)"}


def test_the_ends_of_all_networks_come_first() -> None:
    every = pieces()
    first, count = every[: len(DEFAULT_NETWORKS)], len(DEFAULT_NETWORKS)
    assert [piece.model for piece in first] == list(DEFAULT_NETWORKS)
    assert {piece.batches for piece in first} == {(1, 128)}
    assert {piece.batches for piece in every[count : 2 * count]} == {(8, 32)}
    assert {piece.runtimes for piece in every[2 * count :]} == {(COMPILED,)}
