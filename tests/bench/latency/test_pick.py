from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from artifact.store import read_pick
from bench.latency.pick import Goal, choose, pick, tied_for_fastest, write_pick
from bench.latency.prose import measured_cells, method
from bench.latency.record import Row, Sweep

Rows = Callable[..., Row]
Sweeps = Callable[..., Sweep]


def test_the_fastest_servable_row_at_batch_1_is_picked(
    tmp_path: Path, make_row: Rows, make_sweep: Sweeps
) -> None:
    best = make_row(ms=2.0, precision="int8", runtime="openvino")
    sweep = make_sweep(
        make_row(ms=1.0, runtime="torch"),
        make_row(ms=1.1, precision="fp16", unverified="no driver when it was made"),
        make_row(ms=0.5, batch=8),
        make_row(ms=None, reason="absent", runtime="ort-cuda"),
        make_row(ms=3.0),
        best,
    )
    chosen = pick(sweep, "tiny-toy")
    assert chosen is not None
    assert chosen.row is best
    assert chosen.ties == ()
    assert "onnx-int8 in openvino" in chosen.sentence
    (tmp_path / "tiny-toy").mkdir()
    write_pick(sweep, chosen, tmp_path)
    choice = read_pick(tmp_path / "tiny-toy")
    assert choice is not None
    assert (choice.artifact, choice.runtime, choice.threads) == ("onnx-int8", "openvino", 1)
    assert choice.p50_s == best.latency.p50  # type: ignore[union-attr]
    assert choice.machine == "a processor"


def test_a_tie_goes_to_the_higher_precision_and_says_so(make_row: Rows, make_sweep: Sweeps) -> None:
    fp32 = make_row(ms=2.1, spread=0.2)
    int8 = make_row(ms=2.0, spread=0.2, precision="int8")
    slow = make_row(ms=9.0, runtime="openvino")
    chosen = pick(make_sweep(int8, fp32, slow), "tiny-toy")
    assert chosen is not None
    assert chosen.row is fp32
    assert chosen.ties == (int8,)
    assert "a tie with onnx-int8 in ort-cpu" in chosen.sentence
    assert tied_for_fastest(make_sweep(int8, fp32, slow)) == [fp32, int8]


def test_a_tie_that_may_be_much_slower_is_not_taken(make_row: Rows, make_sweep: Sweeps) -> None:
    fp32, int8 = make_row(ms=2.6, spread=0.7), make_row(ms=2.0, spread=0.2, precision="int8")
    chosen = pick(make_sweep(int8, fp32), "tiny-toy")
    assert chosen is not None
    assert chosen.row is int8
    assert chosen.ties == (fp32,)


def test_a_tie_of_equal_precision_goes_to_the_lower_median(
    make_row: Rows, make_sweep: Sweeps
) -> None:
    slower, faster = make_row(ms=2.1, spread=0.2), make_row(ms=2.0, spread=0.2, runtime="openvino")
    chosen = pick(make_sweep(slower, faster), "tiny-toy")
    assert chosen is not None
    assert chosen.row is faster


def test_on_a_busy_machine_cpu_time_decides(make_row: Rows, make_sweep: Sweeps) -> None:
    def row(precision: str, ms: float, cpu_ms: float) -> Row:
        made = make_row(ms=ms, spread=0.4, precision=precision)
        assert made.latency is not None
        cpu = tuple((cpu_ms / 1e3,) * 5 for _ in made.latency.turns)
        return dataclasses.replace(made, latency=dataclasses.replace(made.latency, cpu=cpu))

    float32, int8 = row("fp32", 8.0, 6.0), row("int8", 8.5, 4.0)
    sweep = make_sweep(float32, int8)
    assert sweep.tied(int8) == []
    found = pick(sweep, "tiny-toy")
    assert found is not None
    assert (found.row, found.ties) == (int8, ())
    assert tied_for_fastest(sweep) == []
    winner = choose(sweep, Goal(min_top1=0.9))
    assert winner.candidate.row is int8
    assert [one.row for one in winner.front] == [int8]
    text = " ".join(method(sweep))
    assert "1.73 times p50 of CPU time" in text  # the median of 8 / 6 and 8.5 / 4
    assert "CPU time 4.00 ms" in measured_cells(sweep, int8, {})["Notes"]


def test_nothing_servable_is_no_pick(make_row: Rows, make_sweep: Sweeps) -> None:
    assert pick(make_sweep(make_row(runtime="torch")), "tiny-toy") is None
