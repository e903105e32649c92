"""The profile of answers and images: what an artifact met when it was made.

It is compared with what the artifact meets in service (:mod:`artifact.drift`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from artifact.answering import Answering
from artifact.records import QUANTILES, Logits, Profile
from core.image_statistics import image_statistics
from core.preprocess import Pixels

SCORE = "score"  # the feature that is the score of the likeliest label
_DIGITS = 5  # of each value that is stored

Floats = npt.NDArray[np.float64]


class Profiler:
    """Collects the profile of images, batch by batch.

    Args:
        answering: how logits become scores.
    """

    def __init__(self, answering: Answering) -> None:
        self._answering = answering
        self._features: dict[str, list[npt.NDArray[Any]]] = defaultdict(list)
        self._classes: npt.NDArray[np.int64] | int = 0

    def add(self, pixels: Pixels, logits: Logits) -> None:
        """Adds uint8 ``pixels`` (n, H, W, channels) and their float32 ``logits`` (n, C)."""
        scores = np.array([self._answering.scores(each).max() for each in logits])
        for name, values in {SCORE: scores, **image_statistics(pixels)}.items():
            self._features[name].append(values)
        self._classes += np.bincount(logits.argmax(axis=1), minlength=logits.shape[1])

    def profile(self) -> Profile:
        """Returns the profile of all that was added, at least one image."""
        columns = {name: np.concatenate(parts) for name, parts in self._features.items()}
        return profile_of(columns, np.atleast_1d(self._classes))


def profile_of(features: Mapping[str, npt.NDArray[Any]], classes: npt.NDArray[Any]) -> Profile:
    """Returns the profile of images.

    Args:
        features: values by feature, (n,) each.
        classes: how many images got each label, (C,).
    """
    points = (np.arange(QUANTILES) + 0.5) / QUANTILES
    quantiles = {name: np.quantile(values, points) for name, values in features.items()}
    # Of 1,000 classes the likeliest may have a score of 0.001: only significant digits tell more.
    scores = rounded(quantiles[SCORE], significant=True)
    others = {name: rounded(values) for name, values in quantiles.items()}
    return Profile(
        images=len(features[SCORE]),
        quantiles={name: tuple(values) for name, values in {**others, SCORE: scores}.items()},
        classes=tuple(classes.tolist()),
    )


def rounded(values: npt.NDArray[Any], *, significant: bool = False) -> list[float]:
    """Returns values (n,) with five decimals, or five significant digits."""
    return [float(f"{value:.{_DIGITS}{'g' if significant else 'f'}}") for value in values]


def rounded_like(points: tuple[float, ...], values: npt.NDArray[Any]) -> Floats:
    """Returns values (n,) with the digits that the quantiles of a profile have.

    So values that were the same before and after are the same. Scores of a profile that an earlier
    version stored have five decimals, as all other features.
    """
    stored = np.asarray(points)
    decimals = rounded(stored) == stored.tolist()
    return np.array(rounded(values, significant=not decimals))
