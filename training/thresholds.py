"""Scores from which answers are given: for a wanted precision, or the best F1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from training.summary.label_figures import MIDDLE, Flags, Scores

FEWEST = 20
"""Fewest held-out images from which a score below which to abstain is chosen."""
NEVER = 1.0  # a threshold that no score exceeds


@dataclass(frozen=True, kw_only=True, slots=True)
class Abstention:
    """When the most likely class is no answer.

    Attributes:
        threshold: score below which it is none.
        wanted: precision for which it was chosen.
        precision: fraction of the answered held-out images that were classified correctly.
        coverage: fraction of the held-out images that were answered.
        images: number of held-out images.
    """

    threshold: float
    wanted: float
    precision: float
    coverage: float
    images: int


class _Curve(NamedTuple):
    """What thresholds between the scores of images do, in falling order.

    Each lies in the middle of two scores, so that rounding moves no image over it; the last is
    below all of them.
    """

    thresholds: Scores
    answered: npt.NDArray[np.int64]  # images above each
    right: npt.NDArray[np.int64]  # of them


def _curve(scores: Scores, hits: Flags) -> _Curve:
    order = np.argsort(-scores, kind="stable")
    falling, right = scores[order], np.cumsum(hits[order])
    last = np.append(np.flatnonzero(np.diff(falling)), len(falling) - 1)  # of equal scores
    below = np.append(falling[1:], 0.0)
    return _Curve((falling[last] + below[last]) / 2, last + 1, right[last])


def lowest_for(precision: float, scores: Scores, hits: Flags) -> float | None:
    """Returns the lowest threshold above which the fraction of hits is at least ``precision``.

    Args:
        precision: wanted, in (0, 1].
        scores: (N,), in [0, 1].
        hits: (N,), whether each answer is right.

    Returns:
        None if no threshold has it.
    """
    curve = _curve(scores, hits)
    enough = np.flatnonzero(curve.right >= precision * curve.answered - 1e-9)
    return float(curve.thresholds[enough[-1]]) if len(enough) else None


def best_f1(scores: Scores, truth: Flags) -> float:
    """Returns the highest threshold with the best F1; 0.5 where no image has the label.

    Args:
        scores: (N,), in [0, 1].
        truth: (N,), whether each image has it.
    """
    if not truth.any():
        return MIDDLE
    curve = _curve(scores, truth)
    f1 = 2 * curve.right / (truth.sum() + curve.answered)
    return float(curve.thresholds[f1.argmax()])


def label_thresholds(
    scores: Scores, truth: Flags, labels: Sequence[str], precision: float | None
) -> tuple[tuple[float, ...], list[str]]:
    """Returns the threshold of each label, and the labels that no threshold has the precision for.

    Their threshold is 1, so that they are never given.

    Args:
        scores: (N, C) of held-out images, in [0, 1].
        truth: (N, C), whether each image has each label.
        labels: names of the labels.
        precision: wanted for each label; None for the best F1.
    """
    if precision is None:
        found = [best_f1(*columns) for columns in zip(scores.T, truth.T, strict=True)]
        return tuple(found), []
    lowest = [lowest_for(precision, *columns) for columns in zip(scores.T, truth.T, strict=True)]
    never = [label for label, each in zip(labels, lowest, strict=True) if each is None]
    return tuple(NEVER if each is None else each for each in lowest), never


def find_abstention(scores: Scores, hits: Flags, precision: float) -> Abstention | str:
    """Returns when to abstain so that answers have a precision, or the reason why there is no such.

    Args:
        scores: (N,) of the most likely class of held-out images.
        hits: (N,), whether it is the right one.
        precision: wanted, in (0, 1].
    """
    if len(scores) < FEWEST:
        return f"there are {len(scores)} held-out images, fewer than {FEWEST}"
    threshold = lowest_for(precision, scores, hits)
    if threshold is None:
        return f"no score has a precision of {100 * precision:g} % on held-out images"
    right, answered = answers_at(threshold, scores, hits)
    return Abstention(
        threshold=threshold,
        wanted=precision,
        precision=right / answered,
        coverage=answered / len(scores),
        images=len(scores),
    )


def answers_at(threshold: float, scores: Scores, hits: Flags) -> tuple[int, int]:
    """Returns the numbers of right answers, and of answers, with a score of at least this."""
    given = scores >= threshold
    return int((hits & given).sum()), int(given.sum())
