"""Layers, peaks and networks that nobody measured, for tests of what is computed from them."""

from __future__ import annotations

from typing import Any

from bench.layers.peaks import Peaks
from bench.layers.record import LayerTime, LayerTimes
from bench.measure.timing import Latency

PEAKS = Peaks(
    machine="here",
    runtime="ort-cpu",
    threads=1,
    flops={"fp32": 100e9, "int8": 400e9},
    bandwidth=((64_000, 60e9), (1_000_000, 30e9), (100_000_000, 10e9)),
    launch=1e-6,
    when="2026-11-22T00:00:00+00:00",
)


def layer(name: str = "a", **changes: Any) -> LayerTime:
    """Returns a pointwise layer of 1 M MACs that takes 0.1 ms; keywords replace fields."""
    fields: dict[str, Any] = {
        "name": name,
        "op": "Conv",
        "kind": "pointwise",
        "added": False,
        "macs": 1_000_000,
        "bytes": 30_000,
        "read": 10_000,
        "weights": 10_000,
        "written": 10_000,
        "seconds": 1e-4,
    }
    return LayerTime(**{**fields, **changes})


def times(model: str, *layers: LayerTime, **changes: Any) -> LayerTimes:
    """Returns a network of ``layers``, of which a call takes what they add up to."""
    call = sum(one.seconds for one in layers)
    fields: dict[str, Any] = {
        "model": model,
        "data": "toy",
        "precision": "fp32",
        "sha256": "0" * 64,
        "batch": 1,
        "threads": 1,
        "layers": layers,
        "call": Latency(turns=((call,) * 5,) * 5, warmup=1),
        "machine": "here",
        "when": "2026-11-22T00:00:00+00:00",
    }
    return LayerTimes(**{**fields, **changes})
