"""Figures of a classifier's answers: accuracy, confusions, calibration.

Top-1 of a class is its recall. Macro-F1 and balanced accuracy are means over the classes that have
images, every class counting the same; balanced accuracy is the mean recall.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.records import MANY
from training.summary.calibration import (
    Bin,
    Flags,
    Scores,
    calibration_bins,
    calibration_error,
)
from training.summary.confusion import (
    Matrix,
    Pair,
    balanced_accuracy,
    class_results,
    confused_pairs,
    macro_f1,
    wilson,
)

CHANCE = 0.05  # significance level

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassFigures:
    """Figures of one class; None where there are no images to compute them from.

    Attributes:
        label: name of the class.
        images: number of its images.
        right: number of them that were classified correctly.
        predicted: number of images of any class that were classified as it.
        precision: ``right`` over ``predicted``.
        recall: ``right`` over ``images``.
        f1: harmonic mean of the two.
    """

    label: str
    images: int
    right: int
    predicted: int
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """Figures of a classifier on labelled images; fractions are in [0, 1].

    Attributes:
        images: number of images.
        right: number of them that were classified correctly.
        top1: fraction classified correctly.
        interval: 95 % confidence interval of ``top1`` (Wilson's score interval).
        top5: fraction whose class is among the five most likely; None for ten classes or fewer.
        macro_f1: mean of the F1 of all classes that have images.
        balanced_accuracy: mean of the recall of all classes that have images.
        calibration_error: expected calibration error over ``bins``.
        confidence: mean of the best scores.
        classes: figures of each class, in the order of the artifact's labels.
        pairs: confused pairs of classes, the most frequent first.
        bins: bins of equal width, by the best score.
    """

    images: int
    right: int
    top1: float
    interval: tuple[float, float]
    top5: float | None
    macro_f1: float
    balanced_accuracy: float
    calibration_error: float
    confidence: float
    classes: tuple[ClassFigures, ...]
    pairs: tuple[Pair, ...]
    bins: tuple[Bin, ...]

    @property
    def confusion(self) -> Matrix:
        """Returns int64 (C, C): rows are true classes, columns predicted ones."""
        matrix = np.diag([each.right for each in self.classes]).astype(np.int64)
        for pair in self.pairs:
            matrix[pair.true, pair.predicted] = pair.count
        return matrix


def figures_of(truth: Indices, best: Indices, scores: Scores, labels: Sequence[str]) -> Figures:
    """Computes figures from predictions.

    Args:
        truth: (N,) true class of each image; N is at least 1.
        best: (N, k) predicted classes, the most likely first; k is 5, or less with fewer classes.
        scores: (N,) softmax score of the first.
        labels: names of all classes.
    """
    assert len(truth) == len(best) == len(scores) > 0
    confusion: Matrix = np.zeros((len(labels), len(labels)), dtype=np.int64)
    np.add.at(confusion, (truth, best[:, 0]), 1)
    results = class_results(confusion, labels)
    classes = tuple(
        ClassFigures(
            label=result.label,
            images=result.images,
            right=result.right,
            predicted=result.predicted,
            precision=result.precision,
            recall=result.top1,
            f1=result.f1,
        )
        for result in results
    )
    hits = best[:, 0] == truth
    right, images = int(hits.sum()), len(truth)
    bins = calibration_bins(hits, scores)
    return Figures(
        images=images,
        right=right,
        top1=right / images,
        interval=wilson(right, images),
        top5=float((best == truth[:, None]).any(axis=1).mean()) if len(labels) > MANY else None,
        macro_f1=macro_f1(results),
        balanced_accuracy=balanced_accuracy(results),
        calibration_error=calibration_error(bins),
        confidence=float(scores.mean()),
        classes=classes,
        pairs=tuple(confused_pairs(confusion)),
        bins=bins,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Paired:
    """Two classifiers on the same images.

    Attributes:
        both: images that both classify correctly.
        only_first: images that only the first does.
        only_second: images that only the second does.
        neither: images that neither does.
        difference: top-1 of the first minus that of the second, in [-1, 1].
        interval: 95 % confidence interval of ``difference``, see :func:`paired_interval`.
        agreement: fraction with the same prediction, right or wrong, in [0, 1].
        p_value: of McNemar's exact test, two-sided, on the images that only one classifies
            correctly.
    """

    both: int
    only_first: int
    only_second: int
    neither: int
    difference: float
    interval: tuple[float, float]
    agreement: float
    p_value: float

    @property
    def more_than_chance(self) -> bool:
        """Returns whether the difference is significant: p below 0.05."""
        return self.p_value < CHANCE


def paired(first: Flags, second: Flags, same: Flags) -> Paired:
    """Compares two classifiers on the same images.

    Args:
        first: (N,) whether the first classifies each image correctly; N is at least 1.
        second: (N,) likewise for the second.
        same: (N,) whether both predict the same class.
    """
    from scipy.stats import binomtest

    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    parted = only_first + only_second
    both, neither = int((first & second).sum()), int((~first & ~second).sum())
    return Paired(
        both=both,
        only_first=only_first,
        only_second=only_second,
        neither=neither,
        difference=(only_first - only_second) / len(same),
        interval=paired_interval(both, only_first, only_second, neither),
        agreement=float(same.mean()),
        p_value=float(binomtest(only_first, parted).pvalue) if parted else 1.0,
    )


def paired_interval(
    both: int, only_first: int, only_second: int, neither: int
) -> tuple[float, float]:
    """Returns the 95 % confidence interval of the difference of two shares of the same images.

    It is made of Wilson's intervals of the two shares and their correlation: Newcombe 1998,
    Improved confidence intervals for the difference between binomial proportions based on paired
    data, method 10. It stays inside [-1, 1], and has a width where both are right alike.

    Args:
        both: images that both classify correctly; the next three likewise, at least one in all.
        only_first: those that only the first does.
        only_second: those that only the second does.
        neither: those that neither does.
    """
    images = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    (low_1, high_1), (low_2, high_2) = wilson(first, images), wilson(second, images)
    share_1, share_2 = first / images, second / images
    product = float(both * neither - only_first * only_second)
    if product > 0:  # the correction for continuity
        product = max(product - images / 2, 0)
    margins = first * (images - first) * second * (images - second)
    correlation = product / math.sqrt(margins) if margins else 0.0

    def length(one: float, other: float) -> float:
        return math.sqrt(max(one**2 - 2 * correlation * one * other + other**2, 0.0))

    difference = share_1 - share_2
    return (
        difference - length(share_1 - low_1, high_2 - share_2),
        difference + length(high_1 - share_1, share_2 - low_2),
    )
