"""Figures of answers with any number of labels: average precision, and F1 at thresholds."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import numpy.typing as npt

from report.format import plural
from training.summary.confusion import FEW

MIDDLE = 0.5  # score from which a label is more likely than not
_SHUFFLES = 19  # which scores by chance exceed once in twenty times
Scores = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelResult:
    """Figures of one label; None where there are no images to compute them from.

    Attributes:
        label: its name.
        images: number of images with it.
        answered: number of images that are given it, as their score is above its threshold.
        right: number of these that have it.
        threshold: score above which an image is given it.
        average_precision: mean of the precision at each image with it, in the order of scores (the
            area under the steps of the curve of precision over recall).
    """

    label: str
    images: int
    answered: int
    right: int
    threshold: float
    average_precision: float | None

    @property
    def precision(self) -> float | None:
        """Returns the fraction of the images given it that have it."""
        return self.right / self.answered if self.answered else None

    @property
    def recall(self) -> float | None:
        """Returns the fraction of the images with it that are given it."""
        return self.right / self.images if self.images else None

    @property
    def f1(self) -> float | None:
        """Returns the harmonic mean of both."""
        total = self.images + self.answered
        return 2 * self.right / total if total else None

    @property
    def few(self) -> bool:
        """Returns whether there are too few images to trust its figures."""
        return self.images < FEW


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelFigures:
    """Figures of answers with any number of labels; fractions are in [0, 1].

    Attributes:
        images: number of images.
        exact: fraction of them of which every label is right.
        mean_ap: mean average precision (macro mAP): the mean over the labels that images have; NaN
            without any.
        micro_ap: average precision of all pairs of image and label together (micro mAP); NaN
            likewise.
        chance: mean over the same labels of the fraction of images with it, which is the mean
            average precision of scores by chance.
        labels: figures of each label.
    """

    images: int
    exact: float
    mean_ap: float
    micro_ap: float
    chance: float
    labels: tuple[LabelResult, ...]

    @property
    def macro_f1(self) -> float:
        """Returns the mean of the F1 of the labels that images have; NaN without any."""
        values = [each.f1 or 0.0 for each in self.labels if each.images]
        return fmean(values) if values else math.nan

    @property
    def micro_f1(self) -> float:
        """Returns the F1 of all pairs of image and label together; NaN without any."""
        total = sum(each.images + each.answered for each in self.labels)
        return 2 * sum(each.right for each in self.labels) / total if total else math.nan

    @property
    def confusion(self) -> npt.NDArray[np.int64]:
        """Returns int64 (C, 2, 2): without and with each label, not given and given it."""
        return np.array(
            [
                [
                    [self.images - e.images - e.answered + e.right, e.answered - e.right],
                    [e.images - e.right, e.right],
                ]
                for e in self.labels
            ],
            dtype=np.int64,
        )


def label_figures(
    truth: Flags, scores: Scores, thresholds: Sequence[float], labels: Sequence[str]
) -> LabelFigures:
    """Computes figures from scores.

    Args:
        truth: (N, C), whether each image has each label; N is at least 1.
        scores: (N, C), in [0, 1].
        thresholds: (C,), scores above which an image is given a label.
        labels: names of the labels.
    """
    answers = scores > np.asarray(thresholds)
    results = tuple(
        LabelResult(
            label=label,
            images=int(truth[:, at].sum()),
            answered=int(answers[:, at].sum()),
            right=int((truth[:, at] & answers[:, at]).sum()),
            threshold=float(thresholds[at]),
            average_precision=average_precision(truth[:, at], scores[:, at]),
        )
        for at, label in enumerate(labels)
    )
    shares = [r.images / len(truth) for r in results if r.images]
    return LabelFigures(
        images=len(truth),
        exact=float((answers == truth).all(axis=1).mean()),
        mean_ap=_mean_of_known(each.average_precision for each in results),
        micro_ap=average_precision(truth.ravel(), scores.ravel()) or math.nan,
        chance=fmean(shares) if shares else math.nan,
        labels=results,
    )


def average_precision(truth: Flags, scores: Scores) -> float | None:
    """Returns the average precision of scores (N,) of images with a label or not; None without any.

    Images with equal scores count together, as in scikit-learn.
    """
    if not truth.any():
        return None
    from sklearn.metrics import average_precision_score  # takes a second to import

    return float(average_precision_score(truth, scores))


def mean_average_precision(truth: Flags, scores: Scores) -> float:
    """Returns the mean of :func:`average_precision` over the labels that images have; NaN without.

    Args:
        truth: (N, C), whether each image has each label.
        scores: (N, C), in [0, 1].
    """
    columns = zip(truth.T, scores.T, strict=True)
    return _mean_of_known(average_precision(had, given) for had, given in columns)


def _mean_of_known(values: Iterable[float | None]) -> float:
    known = [value for value in values if value is not None]
    return fmean(known) if known else math.nan


def no_better_than_shuffled(truth: Flags, scores: Scores) -> str | None:
    """Returns a text if the mAP is no better than with the scores of other images; None if it is.

    Better is: than each of :data:`_SHUFFLES` random assignments of scores to images.

    Args:
        truth: (N, C), whether each image has each label.
        scores: (N, C), in [0, 1].
    """
    random, found = np.random.default_rng(0), mean_average_precision(truth, scores)
    shuffled = (random.permutation(len(truth)) for _ in range(_SHUFFLES))
    if math.isnan(found) or all(
        mean_average_precision(truth, scores[order]) < found for order in shuffled
    ):
        return None
    return (
        f"mAP is {100 * found:.1f} % on {plural(len(truth), 'held-out image')}, which cannot be "
        f"told from chance: {_SHUFFLES} times, each image got the scores of another, and mAP was "
        "not always lower"
    )


def expit(logits: npt.NDArray[np.float32]) -> Scores:
    """Returns the sigmoid of ``logits``, in their shape."""
    from scipy.special import expit as sigmoid

    found: Scores = sigmoid(logits.astype(np.float64))
    return found


def per_label_csv(results: Sequence[LabelResult]) -> str:
    """Returns a CSV line per label; fractions in [0, 1], empty where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    fractions = ("average_precision", "precision", "recall", "f1")
    writer.writerow(("label", "images", "answered", "right", "threshold", *fractions))
    for each in results:
        values = (getattr(each, name) for name in fractions)
        shares = ("" if value is None else f"{value:.6f}" for value in values)
        counts = (each.images, each.answered, each.right, f"{each.threshold:.6f}")
        writer.writerow((each.label, *counts, *shares))
    return text.getvalue()
