from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.rows import Row, Sweep
from models.errors import UserError

Rows = Callable[..., Row]
Sweeps = Callable[..., Sweep]


def test_comparisons_stay_within_a_network_and_batch(make_row: Rows, make_sweep: Sweeps) -> None:
    fast, torch = make_row(ms=2.0), make_row(ms=8.0, runtime="torch")
    batched = make_row(ms=9.0, batch=8)
    sweep = make_sweep(fast, torch, batched)
    assert sweep.times_torch(fast) == pytest.approx(4.0)
    assert sweep.times_torch(batched) is None
    assert sweep.measured(batch=1) == [fast, torch]
    assert sweep.tied(fast) == []
    assert fast.rate == pytest.approx(17.8e6 / 0.002)


def test_threads_are_compared_with_the_same_number(make_row: Rows, make_sweep: Sweeps) -> None:
    one, two = make_row(ms=4.0), make_row(ms=2.0, threads=2)
    sweep = make_sweep(
        one, two, make_row(ms=8.0, runtime="torch"), make_row(ms=6.0, runtime="torch", threads=2)
    )
    assert sweep.threads() == [1, 2]
    assert sweep.times_torch(one) == pytest.approx(2.0)
    assert sweep.times_torch(two) == pytest.approx(3.0)
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
