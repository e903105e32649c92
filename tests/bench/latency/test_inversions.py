from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from bench.latency.correlation import inversion_section
from bench.latency.costs import Costs
from bench.latency.record import Row, Sweep
from bench.layers.record import Share
from models.cost import Kind

Rows = Callable[..., Row]
Sweeps = Callable[..., Sweep]


@dataclass
class Made:
    """A profile: per kind, its fraction of MACs, bytes and time."""

    kinds: dict[Kind, tuple[float, float, float]]
    bytes: int = 10_000_000

    def shares(self) -> list[Share]:
        return [
            Share(kind=kind, kernels=1, macs=macs, bytes=moved, time=time, seconds=time)
            for kind, (macs, moved, time) in self.kinds.items()
        ]


@pytest.fixture
def sweep(make_row: Rows, make_sweep: Sweeps) -> Sweep:
    def row(name: str, macs: int, ms: float, runtime: str) -> Row:
        costs = Costs(
            macs=macs,
            parameters=1,
            activations=1,
            bytes_moved=1000 - macs,
            kernels=macs,
            depthwise=0,
            pointwise=1,
            grouped=0,
        )
        folder = f"{name}-toy/onnx-fp32"
        return make_row(ms=ms, model=name, folder=folder, costs=costs, runtime=runtime)

    latencies = {"shuffler": 5.0, "plain": 2.0, "big": 9.0, "bigger": 12.0}
    return make_sweep(
        *(
            row(name, macs, latencies[name], runtime)
            for runtime in ("openvino", "ort-cpu")
            for name, macs in zip(latencies, (100, 200, 400, 800), strict=True)
        )
    )


def test_the_sentence_says_where_the_time_goes(sweep: Sweep) -> None:
    profiles = {
        ("shuffler-toy", 1): Made(
            {
                "pointwise": (0.9, 0.2, 0.3),
                "depthwise": (0.1, 0.3, 0.25),
                "data": (0.0, 0.5, 0.45),
            }
        ),
        ("plain-toy", 1): Made({"pointwise": (0.95, 0.9, 0.9), "data": (0.0, 0.1, 0.1)}),
    }
    section = inversion_section(sweep, profiles)
    assert section is not None
    assert section.title == "Fewer MACs, more time (ort-cpu fp32, batch 1, 1 thread)"
    (sentence,) = section.sentences
    assert sentence.startswith("shuffler ")
    figures = ["0.50", "2.5", "2.5", "2.5", "70", "10", "8.0", "10"]
    assert re.findall(r"\d+\.?\d*", sentence) == figures
    (table,) = section.tables
    assert table.rows == (
        (
            "shuffler-toy",
            "plain-toy",
            "0.50",
            "2.50 (2.50 to 2.50)",
            "1.12",
            "100 / 200",
            "5.00 / 2.00",
        ),
    )


def test_without_a_profile_the_ratio_still_stands(sweep: Sweep) -> None:
    section = inversion_section(sweep, {})
    assert section is not None
    (sentence,) = section.sentences
    assert re.findall(r"\d+\.?\d*", sentence) == ["0.50", "2.5", "2.5", "2.5"]


def test_no_inversion_no_section(make_row: Rows, make_sweep: Sweeps) -> None:
    assert inversion_section(make_sweep(make_row()), {}) is None


def test_different_runs_have_an_order_and_no_ratio(sweep: Sweep) -> None:
    rows = [replace(row, when=f"2026-11-22T0{index}:00") for index, row in enumerate(sweep.rows)]
    section = inversion_section(replace(sweep, rows=tuple(rows)), {})
    assert section is not None
    (sentence,) = section.sentences
    assert re.findall(r"\d+\.?\d*", sentence) == ["0.50", "5.00", "2.00"]
    assert section.tables[0].rows[0][3] == "-"
