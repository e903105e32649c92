"""Makes int8 graphs: chooses the calibration method and the layers left in float32."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from artifact.answering import ONE_CLASS, Answering, Sets, agreement
from artifact.golden import relative_error
from artifact.records import Calibration, Limits, Quantization, Rewrite, WeightBits
from core.preprocess import Pixels
from export.quantization.calibration import METHODS, measure_ranges
from export.quantization.gptq import Rounding
from export.quantization.probe import affordable, logits_of
from export.quantization.qdq import (
    NORMS,
    WEIGHT_LIMIT,
    WEIGHTED,
    default_bits,
    prepare,
    to_int8,
    with_ranges,
)
from export.quantization.sensitivity import MOST_FP32, GraphCandidate, counts, layer_errors
from export.rewrites.average_pool import average_by_convolutions
from export.rewrites.grouped_shuffle import fold_into_groups
from export.rewrites.hard_sigmoid import add_in_integers
from export.rewrites.pixel_order import normalise_before_transpose

IMAGES = 64  # images of 224x224 for calibration, rounding and choice
RANDOM_IMAGES = 16  # for random weights, where there is no choice


class Score(NamedTuple):
    """Quality of an int8 graph on the calibration images; compared in the order of the fields."""

    top1: float  # accuracy on labels (of several, their agreement); agreement without any
    agreement: float  # of the answers with those of float32
    closeness: float  # minus the largest relative error of a logit
    drop: float  # top-1 of float32 minus top1; 0 without labels
    image: float  # one image as a fraction of all

    def holds(self, limits: Limits) -> bool:
        """Returns whether other images can be expected to stay within ``limits``.

        A graph does better on its calibration images, so only half of a limit may be lost here, or
        one image if that is more; nothing if the limit is zero.
        """
        agreement, drop = limits.top1_agreement, limits.top1_drop
        return (agreement is None or self._keeps(1 - self.agreement, 1 - agreement)) and (
            drop is None or self._keeps(self.drop, drop)
        )

    def _keeps(self, lost: float, allowed: float) -> bool:
        most = max(allowed / 2, self.image) if allowed > 0 else 0.0
        return lost <= most + 1e-9  # differences of two fractions


def int8_candidates(
    model: Any,
    pixels: Pixels,
    labels: Sets | None,
    limits: Limits,
    *,
    symmetric: bool = False,
    weight_bits: WeightBits | None = None,
    answering: Answering = ONE_CLASS,
) -> Iterator[GraphCandidate]:
    """Yields int8 graphs, first the one that measures best on the calibration images.

    The calibration method is MinMax, Percentile or Entropy, whichever has the best top-1; on a
    tie, the one closest to float32. If that graph is not within its limits, as few layers as
    needed are left in float32, those with the largest own error first. Each further graph leaves
    more of them, up to half.

    Args:
        model: float32 graph with uint8 pixels as input.
        pixels: uint8 (n, H, W, 3) of calibration images that no gate uses.
        labels: their answers, bool (n, C): which labels they have; None if unknown.
        limits: limits on other images. Without a limit on agreement, as for random weights, nothing
            is chosen: MinMax, weights rounded to the nearest, and no layer in float32.
        symmetric: whether activations are symmetric int8, as TensorRT requires.
        weight_bits: bits of the weights; None for :func:`default_bits`.
        answering: how logits become answers, of which top-1 and agreement are.
    """
    judged = limits.top1_agreement is not None
    made = Calibrated(
        model,
        pixels,
        labels,
        judged=judged,
        symmetric=symmetric,
        weight_bits=weight_bits,
        answering=answering,
    )
    norms = [] if symmetric else norms_of(made.prepared)

    def candidate(graph: Any, layers: Sequence[str]) -> GraphCandidate:
        return finished(graph, (*layers, *norms), made.record)

    left = 0
    if made.score.holds(limits):
        yield candidate(made.graph, ())
    order = list(layer_errors(made.prepared, made.graph, made.pixels))
    if symmetric:  # only the inputs of Conv and Gemm are rounded
        weighted = {node.name for node in made.prepared.graph.node if node.op_type in WEIGHTED}
        order = [layer for layer in order if layer in weighted]
    if not made.score.holds(limits):
        most = int(len(order) * MOST_FP32)
        tried: dict[int, Any] = {}

        def holds(count: int) -> bool:
            tried[count] = made.graph_of(order[:count])
            return made.judge(tried[count]).holds(limits)

        left = fewest(most, holds)
        yield candidate(tried[left], order[:left])
    for count in counts(len(order), above=left):
        yield candidate(made.graph_of(order[:count]), order[:count])


class Calibrated:
    """An int8 graph without float32 layers, by the calibration method that measures best.

    Args:
        model: as for :func:`int8_candidates`, like the other ones.
        judged: whether anything is chosen; otherwise MinMax, and weights rounded to the nearest.

    Attributes:
        pixels: the images it was calibrated with.
        prepared: the float32 graph it was made of.
        graph: the int8 graph.
        judge: returns the quality of an int8 graph on those images.
        score: quality of the graph.
        record: how it was made.
    """

    def __init__(
        self,
        model: Any,
        pixels: Pixels,
        labels: Sets | None,
        *,
        judged: bool,
        symmetric: bool = False,
        weight_bits: WeightBits | None = None,
        answering: Answering = ONE_CLASS,
    ) -> None:
        self._symmetric = symmetric
        self._bits: WeightBits = weight_bits or default_bits(symmetric=symmetric)
        self.pixels, labels = chosen_images(pixels, labels, IMAGES if judged else RANDOM_IMAGES)
        self.prepared = prepare(model)
        self.judge = judge_of(self.prepared, self.pixels, labels, answering)
        methods = METHODS if judged else METHODS[:1]
        self._ranges = measure_ranges(self.prepared, self.pixels, methods)
        self._rounding = None
        if judged:
            limit = WEIGHT_LIMIT[self._bits]
            self._rounding = Rounding(self.prepared, self.pixels, limit=limit)
        plain = self._int8(methods[0])
        graphs = {
            m: self._rounded(with_ranges(plain, self.prepared, self._ranges[m])) for m in methods
        }
        scores = {method: self.judge(graph) for method, graph in graphs.items()}
        self._best = max(scores, key=lambda method: scores[method])
        self.graph, self.score = graphs[self._best], scores[self._best]
        self.record = Quantization(
            calibration=self._best,
            images=len(self.pixels),
            labelled=labels is not None,
            top1={method: score.top1 for method, score in scores.items()},
            weight_bits=self._bits,
        )

    def graph_of(self, fp32_layers: Sequence[str]) -> Any:
        """Returns the graph with some layers in float32."""
        return self._rounded(self._int8(self._best, fp32_layers))

    def _int8(self, method: Calibration, fp32_layers: Sequence[str] = ()) -> Any:
        return to_int8(
            self.prepared,
            self._ranges[method],
            fp32_layers,
            symmetric=self._symmetric,
            weight_bits=self._bits,
        )

    def _rounded(self, graph: Any) -> Any:
        if self._rounding:
            self._rounding.apply(graph)
        return graph


def chosen_images(pixels: Pixels, labels: Sets | None, count: int) -> tuple[Pixels, Sets | None]:
    """Returns images in random order, as many as cost as much as ``count`` of 224x224."""
    chosen = np.random.default_rng(0).permutation(len(pixels))  # the first ones have every class
    chosen = chosen[: affordable(pixels, count)]
    return pixels[chosen], None if labels is None else labels[chosen]


def norms_of(model: Any) -> list[str]:
    """Returns the names of the layers that no runtime computes in int8."""
    return [node.name for node in model.graph.node if node.op_type in NORMS]


def finished(graph: Any, fp32_layers: Sequence[str], made: Quantization) -> GraphCandidate:
    """Returns a copy of an int8 graph with its rewrites, checked."""
    from onnx.checker import check_model

    rewritten = copy.deepcopy(graph)
    replaced: dict[Rewrite, int] = {
        "hard_sigmoid": add_in_integers(rewritten),
        "average_pool": average_by_convolutions(rewritten),
        "grouped_shuffle": fold_into_groups(rewritten),
        "pixel_order": normalise_before_transpose(rewritten),
    }
    check_model(rewritten, full_check=True)
    rewrites = {name: count for name, count in replaced.items() if count}
    return GraphCandidate(rewritten, tuple(fp32_layers), made, rewrites)


def fewest(most: int, holds: Callable[[int], bool]) -> int:
    """Returns the smallest count from 1 for which ``holds`` is true; ``most`` if there is none.

    ``holds`` must be monotonic. Doubling, then bisection: about ten trials for hundreds of layers.
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


def judge_of(
    prepared: Any, pixels: Pixels, labels: Sets | None, answering: Answering = ONE_CLASS
) -> Callable[[Any], Score]:
    """Returns what measures the quality of int8 graphs on images, against a float32 graph."""
    reference = logits_of(prepared, pixels)
    expected = answering.sets(reference)
    truth = expected if labels is None else labels

    def judge(graph: Any) -> Score:
        logits = logits_of(graph, pixels)
        answers = answering.sets(logits)
        top1 = agreement(answers, truth)
        return Score(
            top1=top1,
            agreement=agreement(answers, expected),
            closeness=-relative_error(logits, reference),
            drop=agreement(expected, truth) - top1,
            image=1 / len(pixels),
        )

    return judge
