"""Calibration: scores compared with how often the answers are right."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 15

Scores = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class Bin:
    """The images whose best score is in (low, high].

    Attributes:
        low: lower end, in [0, 1].
        high: upper end.
        images: number of images.
        confidence: mean of their best scores; None without images.
        top1: fraction of them classified correctly; None without images.
    """

    low: float
    high: float
    images: int
    confidence: float | None
    top1: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """A temperature, and the calibration of scores without and with it.

    Attributes:
        temperature: the logits are divided by it; 1 if they are left as they are.
        fitted_on: number of held-out images.
        tested_on: number of test images, of which the bins are; 0 if they are of the held-out
            images, each with a temperature fitted on four fifths of the others.
        before: bins without a temperature.
        after: bins with it.
        reason: why the logits are left as they are; None if they are not.
    """

    temperature: float
    fitted_on: int
    tested_on: int
    before: tuple[Bin, ...]
    after: tuple[Bin, ...]
    reason: str | None = None


def calibration_bins(hits: Flags, scores: Scores, count: int = BINS) -> tuple[Bin, ...]:
    """Returns ``count`` bins of equal width by score, each (low, high]; 0 is in the first.

    Args:
        hits: (N,) whether each answer is right.
        scores: (N,) softmax score of each answer.
        count: number of bins.
    """
    edges = np.linspace(0.0, 1.0, count + 1)
    place = np.clip(np.digitize(scores, edges, right=True) - 1, 0, count - 1)
    bins = []
    for number in range(count):
        inside = place == number
        images = int(inside.sum())
        bins.append(
            Bin(
                low=float(edges[number]),
                high=float(edges[number + 1]),
                images=images,
                confidence=float(scores[inside].mean()) if images else None,
                top1=float(hits[inside].mean()) if images else None,
            )
        )
    return tuple(bins)


def calibration_error(bins: Sequence[Bin]) -> float:
    """Returns the expected calibration error (ECE), in [0, 1].

    It is the mean over all images of the absolute difference between top-1 and mean score of their
    bin (Guo et al. 2017, On Calibration of Modern Neural Networks, section 2, equation 3).
    """
    total = sum(each.images for each in bins)
    return sum(
        each.images / total * abs(each.top1 - each.confidence)
        for each in bins
        if each.top1 is not None and each.confidence is not None
    )
