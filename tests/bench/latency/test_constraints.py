from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from artifact.records import Metrics
from artifact.store import read_pick
from bench.latency.command import Pick
from bench.latency.pick import Goal, choose, seconds
from bench.latency.record import Row, Sweep, write_sweep
from core.errors import UserError

Rows = Callable[..., Row]
Sweeps = Callable[..., Sweep]


@pytest.fixture
def sweep(make_row: Rows, make_sweep: Sweeps) -> Sweep:
    def row(name: str, ms: float, top1: float, **changes: Any) -> Row:
        metrics = Metrics(top1=top1, torch_top1=top1, images=1000, runtime="ort-cpu")
        folder = f"{name}-toy/onnx-{changes.get('precision', 'fp32')}"
        return make_row(ms=ms, model=name, folder=folder, metrics=metrics, **changes)

    return make_sweep(
        row("small", 1.0, 0.90),
        row("small", 6.0, 0.90, batch=8),
        row("middle", 3.0, 0.95),
        row("middle", 2.0, 0.94, precision="int8"),
        row("middle", 0.1, 0.99, runtime="torch"),  # a server has no torch
        row("large", 9.0, 0.97),
        row("large", 5.0, 0.97, threads=2),
        row("untested", 0.5, 0.99, unverified="no driver where it was made"),
        make_row(ms=0.4, model="random", folder="random-toy/onnx-fp32", weights="random"),
        make_row(ms=0.3, model="unlabelled", folder="unlabelled-toy/onnx-fp32", metrics=None),
    )


@pytest.mark.parametrize(
    ("goal", "network", "precision", "batch", "threads"),
    [
        (Goal(p99=0.0025), "middle", "int8", 1, 1),  # the most accurate within the limit
        (Goal(p99=0.0055), "large", "fp32", 1, 2),
        (Goal(min_top1=0.95), "middle", "fp32", 1, 1),  # the fastest that is accurate enough
        (Goal(min_top1=0.9), "small", "fp32", 8, 1),  # 0.75 ms an image
        (Goal(min_top1=0.9, p99=0.005), "small", "fp32", 1, 1),
        (Goal(), "large", "fp32", 1, 2),
    ],
)
def test_the_winner_keeps_to_the_limits(
    sweep: Sweep, goal: Goal, network: str, precision: str, batch: int, threads: int
) -> None:
    row = choose(sweep, goal).candidate.row
    assert (row.model, row.precision, row.batch, row.threads) == (
        network,
        precision,
        batch,
        threads,
    )


def test_the_front_is_of_the_winners_batch_and_threads(sweep: Sweep) -> None:
    winner = choose(sweep, Goal(p99=0.0025))
    names = [(one.row.model, one.row.precision) for one in winner.front]
    assert names == [("small", "fp32"), ("middle", "int8"), ("middle", "fp32"), ("large", "fp32")]


def test_a_tie_goes_to_the_higher_precision(make_row: Rows, make_sweep: Sweeps) -> None:
    fp32, int8 = make_row(ms=2.1, spread=0.2), make_row(ms=2.0, spread=0.2, precision="int8")
    winner = choose(make_sweep(int8, fp32), Goal())
    assert winner.candidate.row is fp32
    assert [tie.row for tie in winner.ties] == [int8]


def test_nothing_within_the_limits_names_the_nearest(sweep: Sweep) -> None:
    with pytest.raises(
        UserError,
        match=r"\b6 candidates .*0\.500 ms .*96\.0 %: "
        r".*small-toy/onnx-fp32 \(p99 1\.00 ms, 90\.0 %\)",
    ):
        choose(sweep, Goal(p99=0.0005, min_top1=0.96))


def test_without_accuracies_there_is_nothing_to_choose(make_row: Rows, make_sweep: Sweeps) -> None:
    with pytest.raises(UserError, match=r"latency .*top-1"):
        choose(make_sweep(make_row(metrics=None)), Goal())


@pytest.mark.parametrize(
    ("text", "value"), [("5ms", 0.005), ("0.2 s", 0.2), ("800us", 0.0008), (".5ms", 0.0005)]
)
def test_durations_have_units(text: str, value: float) -> None:
    assert seconds(text) == pytest.approx(value)


@pytest.mark.parametrize("text", ["5", "0ms", "-1ms", "5 m", "", "1e3ms"])
def test_a_duration_without_a_unit_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"\b0 .*us, ms or s\b"):
        seconds(text)


def test_a_fraction_is_a_fraction() -> None:
    with pytest.raises(UserError, match=r"\b95\b.*\b0 to 1\b"):
        Goal(min_top1=95)


def test_the_command_writes_what_the_server_reads(
    tmp_path: Path,
    sweep: Sweep,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    write_sweep(sweep, tmp_path)
    Pick(p99="5.5ms", data="toy", out=tmp_path, artifacts=tmp_path)()
    printed = capsys.readouterr().out
    assert "serve large-toy: onnx-fp32 in ort-cpu, batch 1, 2 threads" in printed
    choice = read_pick(tmp_path)
    assert choice is not None
    assert (choice.artifact, choice.threads, choice.batch) == ("large-toy/onnx-fp32", 2, 1)
    Pick(min_top1=0.9, batches=(1, 8), out=tmp_path, artifacts=tmp_path)()
    assert "one image" in capsys.readouterr().out  # the server's calls hold no more
    Pick(min_top1=0.9, out=tmp_path, artifacts=tmp_path)()
    assert "small-toy: onnx-fp32 in ort-cpu, batch 1" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"\bflowers\b"):
        Pick(data="flowers", out=tmp_path, artifacts=tmp_path)()
