"""Figures of a confusion matrix: per class, per pair of classes, overall."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from report.format import plural

Matrix = np.ndarray[tuple[int, int], np.dtype[np.int64]]

PER_CLASS = "per_class.csv"
FEW = 10
"""Classes with fewer held-out images are marked."""
_WHOLE, _PART = 30, 20  # most classes for which the picture shows all; number shown otherwise
_Z95 = 1.959964  # 95 % of the normal distribution is within so many standard deviations


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassResult:
    """Figures of one class on the held-out images.

    Attributes:
        index: index of the class, in the order of the logits.
        label: name of the class.
        images: number of held-out images of this class.
        right: number of them classified correctly.
        predicted: number of held-out images of any class classified as this one.
        taken_for: index of the class it is most often confused with; None if it never is.
        times: number of those confusions.
    """

    index: int
    label: str
    images: int
    right: int
    predicted: int
    taken_for: int | None
    times: int

    @property
    def top1(self) -> float | None:
        """Returns the fraction of its images classified correctly; None without images."""
        return self.right / self.images if self.images else None

    @property
    def precision(self) -> float | None:
        """Returns the fraction of images classified as it that are of it; None without any."""
        return self.right / self.predicted if self.predicted else None

    @property
    def f1(self) -> float | None:
        """Returns the harmonic mean of precision and top-1; None without images of either kind."""
        total = self.images + self.predicted
        return 2 * self.right / total if total else None

    @property
    def few(self) -> bool:
        """Returns whether there are too few images to trust its figures."""
        return self.images < FEW


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """The number of images of class ``true`` that were classified as ``predicted``."""

    true: int
    predicted: int
    count: int


def wilson(right: int, images: int) -> tuple[float, float]:
    """Returns the 95 % confidence interval of ``right / images``, in [0, 1].

    It is Wilson's score interval (1927), which is within [0, 1] and has a width even at 0 and 1.
    ``images`` is at least 1.
    """
    assert 0 <= right <= images, f"{right} of {images}"
    assert images > 0, "without images there is no interval"
    share, square = right / images, _Z95**2
    middle = share + square / (2 * images)
    half = _Z95 * math.sqrt(share * (1 - share) / images + square / (4 * images**2))
    scale = 1 + square / images
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def chance(confusion: Matrix) -> str | None:
    """Returns a sentence if top-1 is not significantly better than chance, else None.

    That is the case if its 95 % interval starts at or below the fraction of the largest class. A
    network that was trained to tell small classes may do so at the cost of the largest, so the mean
    over the classes of where their intervals start must then be at or below 1 / classes, too.
    """
    totals = confusion.sum(axis=1)
    images, largest = int(totals.sum()), int(totals.max())
    pairs = zip(confusion.diagonal().tolist(), totals.tolist(), strict=True)
    lows = [wilson(right, total)[0] for right, total in pairs if total]
    if lows and fmean(lows) > 1 / len(lows):
        return None
    return no_better_than_chance(int(confusion.trace()), images, largest)


def no_better_than_chance(right: int, images: int, largest: int) -> str | None:
    """As :func:`chance`, for ``images`` of which ``largest`` are in the largest class."""
    if not images or wilson(right, images)[0] > largest / images:
        return None
    return (
        f"the network classifies {right:,} of {plural(images, 'held-out image')} correctly, which "
        f"cannot be told from chance: the same answer every time would get {largest:,}"
    )


def class_results(confusion: Matrix, labels: Sequence[str]) -> list[ClassResult]:
    """Returns one result per class, in the order of ``labels``."""
    wrong = _wrong(confusion)
    taken_for, times = wrong.argmax(axis=1), wrong.max(axis=1)
    return [
        ClassResult(
            index=index,
            label=label,
            images=int(confusion[index].sum()),
            right=int(confusion[index, index]),
            predicted=int(confusion[:, index].sum()),
            taken_for=int(taken_for[index]) if times[index] else None,
            times=int(times[index]),
        )
        for index, label in enumerate(labels)
    ]


def macro_f1(results: Sequence[ClassResult]) -> float:
    """Returns the mean of the F1 of the classes that have images; NaN without images."""
    return _mean([result.f1 or 0.0 for result in results if result.images])


def balanced_accuracy(results: Sequence[ClassResult]) -> float:
    """Returns the mean of the top-1 of the classes that have images; NaN without images."""
    return _mean([result.right / result.images for result in results if result.images])


def _mean(values: Sequence[float]) -> float:
    return fmean(values) if values else math.nan


def per_class_csv(results: Sequence[ClassResult]) -> str:
    """Returns a CSV line per class; fractions in [0, 1], empty where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fractions = ("top1", "precision", "f1")
    writer.writerow(("class", "images", "right", *fractions, "most_often_taken_for", "times"))
    for result in results:
        other = "" if result.taken_for is None else results[result.taken_for].label
        values = (getattr(result, name) for name in fractions)
        shares = ("" if value is None else f"{value:.6f}" for value in values)
        writer.writerow((result.label, result.images, result.right, *shares, other, result.times))
    return text.getvalue()


def confused_pairs(confusion: Matrix) -> list[Pair]:
    """Returns all confused pairs of classes, the most frequent first.

    Pairs with equal counts are in the order of the classes.
    """
    wrong = _wrong(confusion)
    true, predicted = wrong.nonzero()
    counts = wrong[true, predicted]
    return [
        Pair(true=int(true[at]), predicted=int(predicted[at]), count=int(counts[at]))
        for at in np.argsort(-counts, kind="stable")
    ]


def most_confused(confusion: Matrix, count: int) -> list[int]:
    """Returns the indices of at most ``count`` classes, those that are most often confused.

    Pairs are added in order of their confusions in both directions, so confused classes are
    adjacent.
    """
    wrong = _wrong(confusion)
    chosen: dict[int, None] = {}  # an ordered set
    for pair in confused_pairs(np.triu(wrong + wrong.T)):
        new = {pair.true, pair.predicted} - chosen.keys()
        if len(chosen) + len(new) <= count:
            chosen |= dict.fromkeys((pair.true, pair.predicted))
    return list(chosen)


def shown_classes(confusion: Matrix) -> list[int]:
    """Returns the indices of the classes in the picture, in its order."""
    if len(confusion) <= _WHOLE:
        return list(range(len(confusion)))
    return most_confused(confusion, _PART) or list(range(_PART))


def _wrong(confusion: Matrix) -> Matrix:
    """Returns the matrix with its diagonal set to 0."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    return wrong
