"""Temperature scaling: scores that say how often an answer is right."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from training.records import Answers
from training.summary.calibration import Bin, Calibration, calibration_bins
from training.summary.label_figures import expit

FEWEST = 100
"""Fewest held-out images from which a temperature is fitted."""
_FOLDS = 5
_LIMITS = (0.05, 20.0)


class Outputs(NamedTuple):
    """A network's logits (N, C) on some images, and their classes, int64 (N,).

    If an image may have several labels, ``labels`` is bool (N, C): whether it has each.
    """

    logits: npt.NDArray[np.float32]
    labels: npt.NDArray[Any]

    @property
    def several(self) -> bool:
        """Returns whether an image may have several labels."""
        return self.labels.ndim == 2

    @property
    def scores(self) -> npt.NDArray[np.float64]:
        """Returns the scores (N, C): a softmax, or of several labels a sigmoid of each."""
        return expit(self.logits) if self.several else np.exp(_log_scores(self.logits))

    @property
    def answers(self) -> Answers:
        """Returns how many of the images were classified correctly."""
        return Answers(int(self.right.sum()), len(self.labels))

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """Returns (N,): whether each image was classified correctly.

        Of several labels, whether each has a score above 0.5 if the image has it, else below.
        """
        if self.several:
            return np.asarray(((self.logits > 0) == self.labels).all(axis=1))
        return np.asarray(self.logits.argmax(axis=1) == self.labels)

    def divided(self, by: npt.ArrayLike) -> Outputs:
        """Returns the outputs with logits divided by one temperature, or by one for each image."""
        divisors = np.broadcast_to(np.asarray(by, dtype=np.float32), len(self.labels))
        return Outputs(self.logits / divisors[:, None], self.labels)

    def best_scores(self) -> npt.NDArray[np.float64]:
        """Returns (N,): the softmax score of each answer."""
        scores: npt.NDArray[np.float64] = self.scores.max(axis=1)
        return scores

    def loss(self) -> float:
        """Returns the mean cross-entropy in nats; of several labels, that of each by itself."""
        if self.several:
            signed = np.where(self.labels, self.logits, -self.logits).astype(np.float64)
            return float(np.logaddexp(0, -signed).mean())
        rows = np.arange(len(self.labels))
        return float(-_log_scores(self.logits)[rows, self.labels].mean())

    def bins(self) -> tuple[Bin, ...]:
        """Returns the bins of a reliability diagram: of answers, or of scores of several labels."""
        if self.several:
            return calibration_bins(self.labels.ravel(), self.scores.ravel())
        return calibration_bins(self.right, self.best_scores())


def calibrate(held_out: Outputs, tested: Outputs | None) -> Calibration:
    """Returns the temperature that makes the scores of held-out images most likely.

    Its effect is measured on other images than it was fitted on: on the test images, or, without
    any, by cross-fitting: the images are dealt to five parts in turn, and each part has the
    temperature fitted on the other four. It is used only if the loss is lower with it by
    cross-fitting. Source: Guo et al., arXiv 1706.04599, Section 4.2.
    """
    images, wrong = len(held_out.labels), int((~held_out.right).sum())
    reported = tested or held_out
    reason = None
    if images < FEWEST:
        reason = f"there are {images} held-out images, fewer than {FEWEST}"
    elif not wrong:
        reason = "no held-out image is classified wrongly, so no score would be too high"
    else:
        folds = np.arange(images) % _FOLDS
        each = np.array(
            [
                fit_temperature(Outputs(*(part[folds != fold] for part in held_out)))
                for fold in range(_FOLDS)
            ]
        )
        crossed = held_out.divided(each[folds])
        if crossed.loss() < held_out.loss():
            temperature = fit_temperature(held_out)
            after = tested.divided(temperature) if tested else crossed
            return Calibration(
                temperature=temperature,
                fitted_on=images,
                tested_on=len(tested.labels) if tested else 0,
                before=reported.bins(),
                after=after.bins(),
            )
        reason = "a temperature did not help on held-out images that it was not fitted on"
    return without(reported, reason, images, tested is not None)


def without(reported: Outputs, reason: str, images: int, tested: bool) -> Calibration:
    """Returns the calibration of logits that are left as they are."""
    bins = reported.bins()
    return Calibration(
        temperature=1.0,
        fitted_on=images,
        tested_on=len(reported.labels) if tested else 0,
        before=bins,
        after=bins,
        reason=reason,
    )


def fit_temperature(outputs: Outputs) -> float:
    """Returns the temperature of the lowest cross-entropy, from 0.05 to 20."""
    from scipy.optimize import minimize_scalar

    low, high = map(math.log, _LIMITS)
    best = minimize_scalar(
        lambda log: outputs.divided(math.exp(log)).loss(), bounds=(low, high), method="bounded"
    )
    return math.exp(float(best.x))


def _log_scores(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=1, keepdims=True)
    scores: npt.NDArray[np.float64] = wide - np.log(np.exp(wide).sum(axis=1, keepdims=True))
    return scores
