"""Ranges of activations by three methods, all from the same runs over real images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from export.quantize import Range
from export.records import Calibration
from export.to_onnx import INPUT
from models.preprocess import Pixels

BINS = 2048
LEVELS = 256  # of a uint8 activation
TAIL = 1e-4  # largest share of values that Percentile clips at either end
HISTOGRAM_IMAGES = 32
HISTOGRAM_VALUES = 200_000  # of an activation and a batch, about
BATCH = 8  # images at a time: all activations of a batch are in memory together

Histogram = npt.NDArray[np.int64]
Activation = npt.NDArray[np.float32]


def measure_ranges(prepared: Any, pixels: Pixels) -> dict[Calibration, dict[str, Range]]:
    """Returns the range of every float32 activation, by calibration method.

    Args:
        prepared: float32 graph from :func:`export.quantize.prepare`.
        pixels: uint8 (n, H, W, 3) of real images, in random order: all of them count for the
            smallest and the largest value, the first 32 for how the others lie between.
    """
    merged = _merged(prepared)
    names = [name for name in _activations(prepared) if name not in merged]
    session = session_of(with_outputs(prepared, names))
    lows, highs = np.full(len(names), np.inf), np.full(len(names), -np.inf)
    for values in _batches(session, pixels):
        lows = np.minimum(lows, [value.min() for value in values])
        highs = np.maximum(highs, [value.max() for value in values])
    ends: list[Range] = list(zip(lows.tolist(), highs.tolist(), strict=True))
    histograms = np.zeros((len(names), BINS), dtype=np.int64)
    for values in _batches(session, pixels[:HISTOGRAM_IMAGES]):
        for index, value in enumerate(values):
            step = value.size // HISTOGRAM_VALUES | 1  # odd: not always the same columns
            histograms[index] += histogram(value.ravel()[::step], ends[index])
    found: dict[Calibration, dict[str, Range]] = {
        "MinMax": dict(zip(names, ends, strict=True)),
        "Percentile": dict(zip(names, map(percentile_range, histograms, ends), strict=True)),
        "Entropy": dict(zip(names, map(entropy_range, histograms, ends), strict=True)),
    }
    for ranges in found.values():
        ranges.update({name: ranges[result] for name, result in merged.items()})
    return found


def histogram(values: Activation, ends: Range) -> Histogram:
    """Returns int64 (BINS,): how many ``values`` lie in each of equal bins between ``ends``."""
    low, high = ends
    # Five times as fast as np.histogram, and most of the time of a calibration.
    scaled = (values - np.float32(low)) * np.float32(BINS / ((high - low) or 1.0))
    counts: Histogram = np.bincount(np.minimum(scaled.astype(np.intp), BINS - 1), minlength=BINS)
    return counts


def percentile_range(counts: Histogram, ends: Range) -> Range:
    """Returns the range that leaves out at most :data:`TAIL` of the values at either end.

    Args:
        counts: int64 (BINS,) from :func:`histogram`.
        ends: the smallest and the largest value.
    """
    below = np.cumsum(counts) / counts.sum()
    first = int(np.searchsorted(below, TAIL, side="right"))
    last = int(np.searchsorted(below, 1 - TAIL, side="left"))
    return _edge(first, ends), _edge(last + 1, ends)


def entropy_range(counts: Histogram, ends: Range) -> Range:
    """Returns the range whose 256 levels keep most of the distribution's information.

    Of ranges that shrink towards zero step by step, the one of the smallest Kullback-Leibler
    divergence between the distribution, clipped, and its 256 levels. Zeros do not count: a level
    stands for them exactly, and Relu makes so many that nothing else would matter.

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
    for share in np.linspace(1, LEVELS / BINS, 57):
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


def _activations(prepared: Any) -> list[str]:
    import onnx

    infos = [*prepared.graph.value_info, *prepared.graph.output]
    kinds = {info.name: info.type.tensor_type.elem_type for info in infos}
    made = (name for node in prepared.graph.node for name in node.output)
    return [name for name in made if kinds.get(name) == onnx.TensorProto.FLOAT]


def _merged(prepared: Any) -> dict[str, str]:
    """Returns what only a Clip or Relu reads, and its result: the quantizer makes one of the two.

    The part that is clipped off needs no levels, and what is never asked for can stay fused.
    """
    readers = Counter(name for node in prepared.graph.node for name in node.input)
    return {
        node.input[0]: node.output[0]
        for node in prepared.graph.node
        if node.op_type in ("Clip", "Relu") and readers[node.input[0]] == 1
    }


def _batches(session: Any, pixels: Pixels) -> Iterator[list[Activation]]:
    for start in range(0, len(pixels), BATCH):
        yield session.run(None, {INPUT: pixels[start : start + BATCH]})


def with_outputs(model: Any, names: Sequence[str]) -> Any:
    """Returns a copy of ``model`` whose only outputs are the float32 tensors ``names``."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.output[:]
    copy.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names
    )
    return copy


def session_of(model: Any) -> Any:
    """Returns an ONNX Runtime session of ``model`` on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
