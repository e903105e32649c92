"""How a graph goes to int8: by the calibration, and but for the layers, that measure best."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from export.candidate import Candidate
from export.golden import relative_error
from export.quantize import prepare, to_int8
from export.ranges import measure_ranges, session_of
from export.records import Calibration, Limits, Logits, Quantization
from export.rounding import Rounding
from export.sensitivity import layer_errors
from export.to_onnx import INPUT
from models.preprocess import Pixels

Labels = npt.NDArray[np.int64]

BATCH = 32
# Of images for rounding and for the errors of layers, which are means over many positions: 32
# images of 224x224, and more of smaller ones, which have fewer positions.
SOME_PIXELS = 32 * 224 * 224
# Layers in float32 cost time and bytes. A graph that needs more of them than this is no int8
# graph any more: let it miss its limits.
MOST_FP32 = 0.5


class Score(NamedTuple):
    """How good an int8 graph is; the larger is the better one."""

    top1: float  # share of images whose label it finds; agreement where there are no labels
    agreement: float  # share of images that it answers like float32
    closeness: float  # minus the largest relative error of a logit

    def holds(self, limits: Limits) -> bool:
        """Returns whether other images may be expected to be within ``limits``.

        The images a graph was calibrated on flatter it, so half of what the limit allows is kept.
        """
        if limits.top1_agreement is None:
            return True
        return 1 - self.agreement <= (1 - limits.top1_agreement) / 2


def int8_candidates(
    model: Any, pixels: Pixels, labels: Labels | None, limits: Limits, *, symmetric: bool = False
) -> Iterator[Candidate]:
    """Yields the int8 graph that measures best on the calibration images.

    First the calibration method: MinMax, Percentile or Entropy, whichever has the best top-1; on a
    tie, the one that is closest to float32. Then, while that graph is not within its limits,
    layers are left in float32, those with the largest error of their own first, and no more of
    them than needed.

    Args:
        model: float32 graph, uint8 pixels in.
        pixels: uint8 (n, H, W, 3) of calibration images; none that a gate is judged by.
        labels: int64 (n,) of their classes, or None where they have none.
        limits: what the graph must reach on other images; without an agreement to reach, no layer
            is left in float32.
        symmetric: activations are int8 around zero, as TensorRT wants them.
    """
    from onnx.checker import check_model

    prepared = prepare(model)
    judge = _judge(prepared, pixels, labels)
    shuffled = np.random.default_rng(0).permutation(pixels)  # every class is among the first
    some = shuffled[: max(32, SOME_PIXELS // pixels[0, :, :, 0].size)]
    ranges = measure_ranges(prepared, shuffled)
    rounding = Rounding(prepared, some)

    def graph_of(method: Calibration, fp32_layers: Sequence[str] = ()) -> Any:
        graph = to_int8(prepared, ranges[method], fp32_layers)
        rounding.apply(graph)
        return graph

    graphs = {method: graph_of(method) for method in ranges}
    scores = {method: judge(graph) for method, graph in graphs.items()}
    best = max(scores, key=lambda method: scores[method])
    graph, left = graphs[best], 0
    order: list[str] = []
    if not scores[best].holds(limits):
        errors = layer_errors(prepared, graph, some)
        order = sorted(errors, key=lambda layer: errors[layer], reverse=True)
        tried: dict[int, Any] = {}

        def holds(count: int) -> bool:
            tried[count] = graph_of(best, order[:count])
            return judge(tried[count]).holds(limits)

        left = fewest(int(len(order) * MOST_FP32), holds)
        graph = tried[left]
    check_model(graph, full_check=True)
    made = Quantization(
        calibration=best,
        images=len(pixels),
        labelled=labels is not None,
        top1={method: score.top1 for method, score in scores.items()},
    )
    yield Candidate(graph, tuple(order[:left]), made)


def fewest(most: int, holds: Callable[[int], bool]) -> int:
    """Returns the smallest count for which ``holds``, where more never does harm; else ``most``.

    Doubles, then halves the gap: some ten trials for hundreds of layers. 0 is not tried.
    """
    fails, count = 0, 1
    while not holds(count):
        if count >= most:
            return count
        fails, count = count, min(2 * count, most)
    while count - fails > 1:
        middle = (fails + count) // 2
        fails, count = (fails, middle) if holds(middle) else (middle, count)
    return count


def _judge(prepared: Any, pixels: Pixels, labels: Labels | None) -> Callable[[Any], Score]:
    reference = _logits(prepared, pixels)
    expected = reference.argmax(axis=1)
    truth = expected if labels is None else labels

    def judge(graph: Any) -> Score:
        logits = _logits(graph, pixels)
        answers = logits.argmax(axis=1)
        return Score(
            top1=float(np.mean(answers == truth)),
            agreement=float(np.mean(answers == expected)),
            closeness=-relative_error(logits, reference),
        )

    return judge


def _logits(graph: Any, pixels: Pixels) -> Logits:
    session = session_of(graph)
    starts = range(0, len(pixels), BATCH)
    return np.concatenate([session.run(None, {INPUT: pixels[s : s + BATCH]})[0] for s in starts])
