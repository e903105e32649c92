"""Lower limits from peaks that are given; no GPU is measured here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import bench.gpu.limits
from artifact.artifact import Artifact
from bench.gpu.limits import FILE, LimitRow, limits_section, lower_limit, run
from bench.gpu.process import Budget
from bench.latency.record import Row, Sweep, write_sweep
from bench.layers.peaks import Peaks
from core.record_file import read_rows
from models.cost import Kind, LayerCost

PEAKS = Peaks(
    machine="m",
    runtime="torch-cuda",
    threads=1,
    flops={"fp16": 1e12, "fp32": 1e11},
    bandwidth=((1000, 4e9), (10_000, 1e9)),
    launch=1e-6,
    when="2026-11-22T00:00:00+00:00",
)


def layer(macs: int, inputs: int, parameters: int, outputs: int, kind: Kind) -> LayerCost:
    return LayerCost(
        name="a",
        module="a",
        op="Conv" if macs else "Relu",
        kind=kind,
        macs=macs,
        parameters=parameters,
        outputs=outputs,
        inputs=inputs,
    )


CONV = layer(10**7, 100, 50, 100, "convolution")
RELU = layer(0, 100, 0, 100, "element-wise")


def test_a_layer_takes_the_longer_of_both() -> None:
    # 2 x 10^7 operations at 10^12 a second: 20 us; 500 bytes at 4 x 10^9 a second: 0.125 us.
    assert lower_limit([CONV], PEAKS, precision="fp16", batch=1) == pytest.approx(20e-6)
    assert lower_limit([CONV], PEAKS, precision="fp32", batch=1) == pytest.approx(200e-6)
    # 400 bytes move, and nothing is computed.
    assert lower_limit([RELU], PEAKS, precision="fp16", batch=1) == pytest.approx(400 / 4e9)


def test_layers_add_up_and_grow_with_the_batch() -> None:
    # 100 images: 40,000 bytes no longer fit where 4 GB/s are reached.
    assert lower_limit([CONV, RELU], PEAKS, precision="fp16", batch=100) == pytest.approx(
        2000e-6 + 40_000 / 1e9
    )
    # Weights are read once for all images.
    heavy = layer(0, 0, 1000, 0, "linear")
    alone = lower_limit([heavy], PEAKS, precision="fp16", batch=1)
    assert lower_limit([heavy], PEAKS, precision="fp16", batch=100) == alone == 2000 / 4e9


def test_each_network_is_held_against_its_limit(
    tmp_path: Path,
    make_artifact: Callable[..., Artifact],
    make_row: Callable[..., Row],
    make_sweep: Callable[..., Sweep],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_artifact("tiny-random")
    make_artifact("other-random")
    monkeypatch.setattr(bench.gpu.limits, "measure_peaks", lambda *_: PEAKS)
    place = make_row(ms=3.0).latency
    same = {"model": "tiny", "folder": "tiny-random/onnx-fp16", "precision": "fp16", "batch": 8}
    rows = [
        make_row(ms=9.0, runtime="ort-cuda", graph=place, **same),
        make_row(ms=9.0, runtime="torch-cuda", graph=make_row(ms=5.0).latency, **same),
    ]
    write_sweep(make_sweep(*rows), tmp_path)
    said = run(
        tmp_path,
        Budget(60),
        names=("tiny", "other", "lost"),
        artifacts=tmp_path / "artifacts",
        batch=8,
    )
    tiny, other, lost = read_rows(tmp_path / FILE, LimitRow)
    assert (tiny.measured, tiny.runtime, tiny.reason) == (pytest.approx(3e-3), "ort-cuda", None)
    assert tiny.layers is not None
    assert tiny.layers > 0
    assert tiny.fused == 0  # all that it does is to cast and to add up
    assert other.layers == tiny.layers
    assert other.reason == "no fp16 CUDA graph of it was timed at batch 8"
    assert (lost.layers, lost.measured) == (None, None)
    assert "lost-random" in str(lost.reason)
    ratio = f"{3e-3 / tiny.layers:.1f}"
    assert said == (
        "fp16 1 TFLOP/s, fp32 0 TFLOP/s, copies 1 GB/s; "
        f"1 networks take {ratio} to {ratio} times their limit"
    )
    section = limits_section([tiny, other, lost], PEAKS)
    assert section is not None
    networks, copies = section.tables
    assert [row[3] for row in networks.rows] == ["3.00", "not measured", "not measured"]
    assert len(copies.rows) == 2


def test_limits_without_latencies(
    tmp_path: Path, make_artifact: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    make_artifact("tiny-random")
    monkeypatch.setattr(bench.gpu.limits, "measure_peaks", lambda *_: PEAKS)
    said = run(tmp_path, Budget(60), names=("tiny",), artifacts=tmp_path / "artifacts")
    assert "no network was measured beside its limit" in said
    (row,) = read_rows(tmp_path / FILE, LimitRow)
    assert row.layers is not None
    assert "no such file" in str(row.reason)


def test_without_peaks_there_is_no_section() -> None:
    row = LimitRow(model="a", precision="fp16", batch=1, when="")
    assert limits_section([row], None) is None
    assert limits_section([], PEAKS) is None
