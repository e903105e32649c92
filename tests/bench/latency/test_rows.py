from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from bench.latency.pick import pick_all
from bench.latency.prose import in_words, measured_cells, summary
from bench.latency.record import Row, Sweep
from bench.measure.spread import Spread
from bench.measure.timing import Latency
from core.errors import UserError

Rows = Callable[..., Row]
Sweeps = Callable[..., Sweep]


def test_comparisons_stay_within_a_network_and_batch(make_row: Rows, make_sweep: Sweeps) -> None:
    fast, torch = make_row(ms=2.0), make_row(ms=8.0, runtime="torch")
    batched = make_row(ms=9.0, batch=8)
    sweep = make_sweep(fast, torch, batched)
    assert sweep.times_torch(fast) == Spread(4.0, 4.0, 4.0)
    assert sweep.times_torch(batched) == "torch eager was not measured beside it"
    assert sweep.measured(batch=1) == [fast, torch]
    assert sweep.tied(fast) == []
    assert fast.rate == pytest.approx(17.8e6 / 0.002)


def test_threads_are_compared_with_the_same_number(make_row: Rows, make_sweep: Sweeps) -> None:
    one, two = make_row(ms=4.0), make_row(ms=2.0, threads=2)
    sweep = make_sweep(
        one, two, make_row(ms=8.0, runtime="torch"), make_row(ms=6.0, runtime="torch", threads=2)
    )
    assert sweep.threads() == [1, 2]
    assert sweep.times_torch(one) == Spread(2.0, 2.0, 2.0)
    assert sweep.times_torch(two) == Spread(3.0, 3.0, 3.0)
    assert sweep.peers(two)[0] is two


def test_only_what_is_asked_for(make_row: Rows, make_sweep: Sweeps) -> None:
    rows = [
        make_row(folder=f"{network}/onnx-fp32")
        for network in ("mobilenet_v3_large-digits", "mobilenet_v2-digits", "mobilenet_v2-toy")
    ]
    sweep = make_sweep(*rows)
    assert sweep.only("mobilenet_v3").rows == (rows[0],)
    assert sweep.only(data="digits").rows == tuple(rows[:2])
    assert sweep.only("mobilenet_v2", "toy").rows == (rows[2],)
    assert sweep.only() == sweep
    with pytest.raises(UserError, match="nothing of resnet50 on any data was measured; there is"):
        sweep.only("resnet50")


def test_ties_are_by_interval(make_row: Rows, make_sweep: Sweeps) -> None:
    a, b, c = make_row(ms=2.0, spread=0.2), make_row(ms=2.1, precision="int8"), make_row(ms=4.0)
    sweep = make_sweep(a, b, c)
    assert sweep.tied(a) == [b]
    assert sweep.tied(c) == []


def test_a_ratio_is_of_turns_beside_each_other(make_row: Rows, make_sweep: Sweeps) -> None:
    weather = (1.0, 2.0, 1.0, 1.5, 3.0)  # of the machine: both candidates meet it

    def taken(*ms: float) -> Latency:
        turns = tuple((each * factor / 1e3,) * 5 for each, factor in zip(ms, weather, strict=True))
        return Latency(turns=turns, warmup=1)

    torch = make_row(runtime="torch", latency=taken(8.0, 8.0, 8.0, 8.0, 7.0))
    fast = make_row(latency=taken(1.0, 1.0, 1.0, 1.1, 1.0))
    found = make_sweep(torch, fast).times_torch(fast)
    assert isinstance(found, Spread)
    assert (found.median, found.low, found.high) == pytest.approx((8.0, 7.0, 8.0))

    few = dataclasses.replace(taken(8.0, 8.0, 8.0, 8.0, 8.0), turns=((8e-3,), (), (8e-3,), (), ()))
    sweep = make_sweep(dataclasses.replace(torch, latency=few), fast)
    assert "2 turns beside each other, too few" in str(sweep.times_torch(fast))


def test_rows_of_different_runs_are_not_divided(make_row: Rows, make_sweep: Sweeps) -> None:
    torch = make_row(ms=8.0, runtime="torch", when="2026-11-22T00:00:00+00:00")
    fast = make_row(ms=1.0, when="2026-11-22T01:00:00+00:00")
    sweep = make_sweep(torch, fast)
    assert "measured in another run (2026-11-22T00:00:00" in str(sweep.times_torch(fast))
    cells = measured_cells(sweep, fast, {})
    assert cells["x faster"] == "not measured"
    assert "make bench ARGS=--fresh measures both" in cells["Notes"]
    text = " ".join(summary(sweep, pick_all(sweep)))
    assert "times faster" not in text
    assert "The rows are of 2 runs" in text
    assert "The rows are of" not in " ".join(summary(make_sweep(fast), {}))


def test_rows_of_an_earlier_run_are_marked(make_row: Rows, make_sweep: Sweeps) -> None:
    sweep = make_sweep(make_row(ms=1.0), make_row(ms=2.0, runtime="openvino"))
    table = in_words(sweep, {}).terminal
    assert table is not None
    assert "Calls" not in table.header
    now, earlier = sweep.before.when, "2020-01-01T00:00:00+00:00"
    rows = [make_row(ms=1.0, when=now), make_row(ms=2.0, runtime="openvino", when=earlier)]
    sweep = make_sweep(*rows)
    notes = [measured_cells(sweep, row, {})["Notes"] for row in rows]
    assert ["earlier run" in note for note in notes] == [False, True]
    table = in_words(sweep, {}).terminal
    assert table is not None
    assert table.header[-1] == "Calls"
    assert [row[-1] for row in table.rows] == ["35", "35"]


@pytest.mark.parametrize(("weights", "told"), [("random", True), ("imagenet", False)])
def test_speed_with_random_weights_is_no_advice_on_accuracy(
    make_row: Rows, make_sweep: Sweeps, weights: str, told: bool
) -> None:
    sweep = make_sweep(make_row(precision="int8", weights=weights, metrics=None))
    assert ("Its weights are random" in " ".join(summary(sweep, pick_all(sweep)))) == told
