"""Calibration: ranges of activations by MinMax, Percentile and Entropy, from the same runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from artifact.records import Calibration
from core.preprocess import Pixels
from export.quantization.probe import Activation, activations, run_probe, with_outputs
from export.quantization.qdq import Range

BINS = 2048
LEVELS = 256  # of a uint8 activation
TAIL = 1e-4  # largest fraction of values that Percentile clips at either end
HISTOGRAM_IMAGES = 32
HISTOGRAM_VALUES = 200_000  # about so many per activation and batch

METHODS: tuple[Calibration, ...] = ("MinMax", "Percentile", "Entropy")

Histogram = npt.NDArray[np.int64]


def measure_ranges(
    prepared: Any, pixels: Pixels, methods: Collection[Calibration] = METHODS
) -> dict[Calibration, dict[str, Range]]:
    """Returns the range of every float32 activation, for each calibration method.

    Args:
        prepared: float32 graph from :func:`export.quantization.qdq.prepare`.
        pixels: uint8 (n, H, W, 3) of real images, in random order: all are used for minimum and
            maximum, the first 32 for the histograms.
        methods: methods to compute; MinMax alone saves a run.
    """
    ends = measure_ends(prepared, pixels)
    found: dict[Calibration, dict[str, Range]] = {"MinMax": ends}
    if set(methods) != {"MinMax"}:
        counts = _histograms(prepared, pixels[:HISTOGRAM_IMAGES], ends)
        found["Percentile"] = {name: percentile_range(counts[name], ends[name]) for name in ends}
        found["Entropy"] = {name: entropy_range(counts[name], ends[name]) for name in ends}
    merged = _merged(prepared)
    for ranges in found.values():
        ranges.update({name: ranges[result] for name, result in merged.items()})
    return {method: found[method] for method in methods}


def measure_ends(model: Any, pixels: Pixels) -> dict[str, Range]:
    """Returns the smallest and largest value of float32 activations, by name.

    Activations that only a Clip or Relu reads are left out: see :func:`_merged`.

    Args:
        model: float32 ``ModelProto`` with all types inferred.
        pixels: uint8 (n, H, W, 3) of real images.
    """
    merged = _merged(model)
    names = [name for name in activations(model) if name not in merged]
    lows, highs = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for values in run_probe(with_outputs(model, names), pixels):
        lows = np.minimum(lows, [value.min() for value in values])
        highs = np.maximum(highs, [value.max() for value in values])
    return dict(zip(names, zip(lows.tolist(), highs.tolist(), strict=True), strict=True))


def _histograms(model: Any, pixels: Pixels, ends: Mapping[str, Range]) -> dict[str, Histogram]:
    names = list(ends)
    counts = {name: np.zeros(BINS, dtype=np.int64) for name in names}
    for values in run_probe(with_outputs(model, names), pixels):
        for name, value in zip(names, values, strict=True):
            step = value.size // HISTOGRAM_VALUES | 1  # odd: not always the same columns
            counts[name] += histogram(value.ravel()[::step], ends[name])
    return counts


def histogram(values: Activation, ends: Range) -> Histogram:
    """Returns int64 (BINS,): the histogram of ``values`` in equal bins between ``ends``."""
    low, high = ends
    # Five times as fast as np.histogram; it takes most of the time of a calibration.
    scaled = (values - np.float32(low)) * np.float32(BINS / ((high - low) or 1.0))
    counts: Histogram = np.bincount(np.minimum(scaled.astype(np.intp), BINS - 1), minlength=BINS)
    return counts


def percentile_range(counts: Histogram, ends: Range) -> Range:
    """Returns the range that clips at most :data:`TAIL` of the values at either end.

    Args:
        counts: int64 (BINS,) from :func:`histogram`.
        ends: the smallest and the largest value.
    """
    below = np.cumsum(counts) / counts.sum()
    first = int(np.searchsorted(below, TAIL, side="right"))
    last = int(np.searchsorted(below, 1 - TAIL, side="left"))
    return _edge(first, ends), _edge(last + 1, ends)


def entropy_range(counts: Histogram, ends: Range) -> Range:
    """Returns the range with the least Kullback-Leibler divergence of values from 256 levels.

    Candidate ranges shrink towards zero in steps; values outside are clipped. Zeros are not
    counted: they have an exact level, and after a Relu they would dominate.

    Source: S. Migacz, 8-bit inference with TensorRT, GTC 2017.

    Args:
        counts: int64 (BINS,) from :func:`histogram`.
        ends: the smallest and the largest value.
    """
    low, high = ends
    zero = int(np.clip(-low / ((high - low) or 1.0) * BINS, 0, BINS - 1))
    others = counts.astype(np.float64)
    others[zero] = 0
    best = (np.inf, 0, BINS)
    for share in np.linspace(1, LEVELS / BINS, 29):
        first = zero - int(zero * share)
        last = zero + 1 + int((BINS - 1 - zero) * share)
        best = min(best, (_divergence(others, first, last), first, last))
    return _edge(best[1], ends), _edge(best[2], ends)


def _divergence(counts: npt.NDArray[np.float64], first: int, last: int) -> float:
    """Returns the divergence, in nats, of bins ``first`` to ``last`` from their 256 levels."""
    inside = counts[first:last]
    clipped = inside.copy()
    clipped[0] += counts[:first].sum()
    clipped[-1] += counts[last:].sum()
    filled = clipped > 0
    if not filled.any():
        return 0.0
    level = np.arange(len(inside)) * LEVELS // len(inside)
    mass = np.bincount(level, weights=inside, minlength=LEVELS)
    bins = np.bincount(level, weights=filled, minlength=LEVELS)
    p = clipped[filled] / clipped.sum()
    q = (mass / np.maximum(bins, 1))[level][filled] + 1e-9 * clipped.sum()
    return float((p * np.log(p / (q / q.sum()))).sum())


def _edge(index: int, ends: Range) -> float:
    low, high = ends
    return low + (high - low) * min(index / BINS, 1.0)


def _merged(prepared: Any) -> dict[str, str]:
    """Returns each tensor that only a Clip or Relu reads, with its result: they share a range.

    Clipped values need no levels, and the layer stays fused if its tensor is not an output.
    """
    readers = Counter(name for node in prepared.graph.node for name in node.input)
    return {
        node.input[0]: node.output[0]
        for node in prepared.graph.node
        if node.op_type in ("Clip", "Relu") and readers[node.input[0]] == 1
    }
