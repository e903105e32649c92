from __future__ import annotations

import dataclasses
import re
from dataclasses import replace

import pytest
from made_layers import PEAKS, layer, times

from bench.layers.measure import Missing
from bench.layers.peaks import measure_peaks
from bench.layers.roofline import bounds, roof
from bench.layers.sections import roofline_section
from bench.measure.timing import Latency
from core.errors import UserError


def test_a_layer_is_bound_by_what_takes_longest() -> None:
    network = times(
        "n",
        layer("computes", macs=10_000_000),
        layer("moves", macs=0, kind="element-wise", op="Add", weights=0, read=300_000, written=0),
        layer("is called", macs=0, kind="data", op="Slice", weights=0, read=600, written=600),
    )
    compute, memory, launch = bounds(network, PEAKS)
    assert (compute.by, memory.by, launch.by) == ("compute", "memory", "launch")
    assert compute.seconds == pytest.approx(2 * 10e6 / 100e9)
    assert memory.seconds == pytest.approx(300_000 / 60e9)  # it lies in the fastest cache
    assert launch.seconds == PEAKS.launch
    assert roof(network, PEAKS).limit == pytest.approx(200e-6 + 5e-6 + 1e-6)


def test_int8_has_a_peak_of_its_own() -> None:
    (fp32,) = bounds(times("n", layer()), PEAKS)
    (int8,) = bounds(times("n", layer(op="QLinearConv")), PEAKS)
    assert fp32.compute == pytest.approx(4 * int8.compute)


def test_bytes_move_at_the_rate_of_what_holds_them() -> None:
    assert PEAKS.rate(1_000) == PEAKS.rate(64_000) == PEAKS.rate(999_999) == 60e9
    assert PEAKS.rate(1_000_000) == 30e9
    assert PEAKS.rate(10**9) == 10e9
    # Weights have been passed by all others since they were read last.
    small, large = layer("small", weights=50_000), layer("large", weights=1_000_000)
    bound, _ = bounds(times("n", small, large), PEAKS)
    assert bound.weights == pytest.approx(50_000 / 30e9)


def test_shares_and_what_breaks_a_bound() -> None:
    network = roof(
        times(
            "n",
            layer("computes", macs=5_000_000, seconds=300e-6),
            layer("too fast", macs=10_000_000, seconds=100e-6),
        ),
        PEAKS,
    )
    assert network.shares() == {"compute": 1.0, "memory": 0.0, "launch": 0.0}
    assert network.ratio == pytest.approx(400e-6 / 300e-6)
    assert [one.name for one, _ in network.broken()] == ["too fast"]
    (part,) = network.parts()
    assert (part.name, part.kernels) == ("pointwise", 2)
    assert part.excess == pytest.approx(100e-6)
    assert part.reached == pytest.approx(300 / 400)


def test_the_section_names_the_farthest_and_what_is_wrong() -> None:
    near = times("near", layer(macs=4_000_000))
    far = times("far", layer(macs=1_000_000), layer("wrong", macs=10_000_000, seconds=150e-6))
    section = roofline_section([roof(near, PEAKS), roof(far, PEAKS)])
    text = " ".join(section.sentences)
    assert "calls of 2 networks take" in text
    assert "1 of 3 kernels" in text
    assert "wrong of far-toy" in text
    assert len(section.figures) == 1
    nothing = times("n", layer(macs=0, kind="data", op="Slice"))
    assert roofline_section([roof(nothing, PEAKS)]).figures == ()


def test_the_rest_is_split_by_kinds_of_kernels() -> None:
    network = times(
        "n",
        layer("b", macs=4_000_000),
        layer("gate", macs=2_000, weights=8_000, read=400, written=400, seconds=40e-6),
        layer("ReorderInput", op="ReorderInput", kind="data", added=True, macs=0, seconds=2e-6),
        call=Latency(turns=((1.0,),) * 5, cpu=((200e-6,),) * 5, warmup=1),
    )
    table, kinds, _ = roofline_section([roof(network, PEAKS)]).tables
    assert table.rows[0][3:] == (  # the CPU time decides
        "0.200", "0.082", "2.44",
        "one-pixel pointwise 0.039 (2 %), pointwise 0.020 (80 %), outside kernels 0.058",
    )  # fmt: skip
    waited = replace(network, call=Latency(turns=((120e-6,),) * 5, warmup=1))
    table, *_ = roofline_section([roof(waited, PEAKS)]).tables
    assert table.rows[0][-1].endswith("outside kernels -0.022")
    assert [(row[0], *row[-2:]) for row in kinds.rows] == [
        ("pointwise", "80 %", "80 %"),
        ("one-pixel pointwise", "0 %", "2 %"),
        ("layout", "-", "50 %"),
    ]


def test_each_run_has_peaks_of_its_own() -> None:
    later = dataclasses.replace(PEAKS, when="2026-11-23T00:00:00+00:00", flops={"fp32": 50e9})
    first, second = roof(times("a", layer()), PEAKS), roof(times("b", layer()), later)
    assert second.limit == pytest.approx(2 * first.limit)
    section = roofline_section([first, second])
    assert re.search(r"\b2 runs\b", " ".join(section.sentences))
    assert section.tables[2].rows[0][1] == "50 G/s"


def test_what_explains_nothing_is_named() -> None:
    missing = [Missing(network=n, artifact="onnx-fp32", batch=1, reason="busy") for n in "ab"]
    section = roofline_section([roof(times("c", layer()), PEAKS)], missing)
    assert any("a onnx-fp32, batch 1 (busy), and 1 more" in each for each in section.sentences)
    assert [row[0] for row in section.tables[-1].rows] == ["a", "b"]
    (table,) = roofline_section([], missing).tables
    assert len(table.rows) == 2


def test_peaks_are_measured() -> None:
    peaks = measure_peaks("ort-cpu", 1)
    assert min(peaks.flops.values()) > 1e8
    assert peaks.launch > 0
    assert [size for size, _ in peaks.bandwidth] == sorted(size for size, _ in peaks.bandwidth)
    with pytest.raises(UserError, match=r"\btensorrt\b"):
        measure_peaks("tensorrt", 1)
