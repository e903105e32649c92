from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from bench.latency.correlation import correlate, correlation_section, inversions, settings
from bench.latency.costs import Costs
from bench.latency.record import Row, Sweep

Rows = Callable[..., Row]
Sweeps = Callable[..., Sweep]


@pytest.fixture
def make_network(make_row: Rows) -> Callable[..., Row]:
    """Makes the row of one network: its MACs in M, its latency in ms, and its bytes in MB."""

    def make(name: str, macs: int, ms: float, megabytes: int = 1, **changes: object) -> Row:
        costs = Costs(
            macs=macs * 10**6,
            parameters=5,
            activations=macs,
            bytes_moved=megabytes * 10**6,
            kernels=10,
            depthwise=0.1,
            pointwise=0.8,
            grouped=0.0,
        )
        fields = {"model": name, "folder": f"{name}-toy/onnx-fp32", "costs": costs}
        return make_row(ms=ms, macs=costs.macs, **{**fields, **changes})

    return make


def test_latency_that_follows_a_cost_has_a_correlation_of_one(
    make_network: Rows, make_sweep: Sweeps
) -> None:
    sweep = make_sweep(
        *(make_network(f"n{i}", 100 * i, float(i), megabytes=10 - i) for i in range(1, 6))
    )
    ((setting, rows),) = settings(sweep).items()
    assert (setting.runtime, setting.precision, setting.batch) == ("ort-cpu", "fp32", 1)
    found = correlate(rows)
    assert found["MACs"] is not None
    assert found["MACs"].spearman == pytest.approx(1)
    assert found["MACs"].pearson == pytest.approx(1)
    assert found["Bytes moved"] is not None
    assert found["Bytes moved"].spearman == pytest.approx(-1)
    assert found["Parameters"] is None  # the same for all: tells nothing
    assert inversions(rows) == []


def test_ranks_forgive_a_curve_and_values_do_not(make_network: Rows, make_sweep: Sweeps) -> None:
    sweep = make_sweep(*(make_network(f"n{i}", i, float(i) ** 4) for i in range(1, 7)))
    (rows,) = settings(sweep).values()
    macs = correlate(rows)["MACs"]
    assert macs is not None
    assert macs.spearman == pytest.approx(1)
    assert macs.pearson < 0.95


def test_an_inversion_is_beyond_noise_and_the_worst_comes_first(
    make_network: Rows, make_sweep: Sweeps
) -> None:
    sweep = make_sweep(
        make_network("light", 60, 1.4),
        make_network("lighter", 50, 4.0),
        make_network("heavy", 100, 1.0),
        make_network("tied", 90, 1.05, spread=0.5),
        make_network("heaviest", 400, 9.0),
    )
    (rows,) = settings(sweep).values()
    found = [(one.slow.model, one.fast.model) for one in inversions(rows)]
    assert found[0] == ("lighter", "heavy")
    assert ("light", "heavy") in found
    assert ("tied", "heavy") not in found
    worst = inversions(rows)[0]
    assert worst.macs == pytest.approx(0.5)
    assert str(worst.latency) == "4.00 (4.00 to 4.00)"


def test_settings_are_apart_and_need_enough_networks(
    make_network: Rows, make_sweep: Sweeps
) -> None:
    one = [make_network(f"n{i}", i, 1.0 + i) for i in range(1, 5)]
    eight = [make_network(f"n{i}", i, 9.0 + i, batch=8) for i in range(1, 5)]
    int8 = [
        make_network(f"n{i}", i, 1.0, precision="int8", costs=None, folder=f"n{i}-toy/onnx-int8")
        for i in range(1, 4)
    ]
    found = settings(make_sweep(*one, *eight, *int8))
    assert [setting.batch for setting in found] == [1, 8]
    more = make_network(
        "n4", 4, 1.0, precision="int8", costs=None, folder="n4-toy/onnx-int8"
    )  # its costs are those of its float32 graph
    assert len(settings(make_sweep(*one, *int8, more))) == 2


def test_the_section_says_what_the_figures_say(make_network: Rows, make_sweep: Sweeps) -> None:
    assert correlation_section(make_sweep(make_network("a", 1, 1.0))) is None
    sweep = make_sweep(
        *(make_network(f"n{i}", [3, 1, 4, 2][i], float(i + 1), megabytes=i + 1) for i in range(4))
    )
    section = correlation_section(sweep)
    assert section is not None
    assert re.search(r"\b1 of 1 .*: Bytes moved\.", section.sentences[0])
    (table,) = section.tables
    assert len(table.rows) == 1
    assert dict(zip(table.header, table.rows[0], strict=True))["Bytes moved"] == "1.00 / 1.00"
    assert dict(zip(table.header, table.rows[0], strict=True))["Inversions"] == "3 of 6"
