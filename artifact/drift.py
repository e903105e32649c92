"""Drift: how far images and answers in service are from those that an artifact was made with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from artifact.profile import Floats, rounded_like
from artifact.records import Profile

CLASSES = "classes"  # the feature that is the likeliest label
BINS = 10
# The usual reading of a population stability index (Siddiqi, Credit Risk Scorecards, 2006).
MODERATE, LARGE = 0.1, 0.25
_LEAST = 1e-4  # counts as the share of a bin without images; the index would be infinite
_RARE = 5  # least expected count of the chi-squared test


class Drift(NamedTuple):
    """The drift of one feature.

    Attributes:
        feature: its name.
        psi: population stability index, at least 0.
        statistic: largest distance of the two cumulative distributions (Kolmogorov-Smirnov); of
            classes the chi-squared statistic.
        p_value: probability of at least that, if nothing has changed; not corrected.
        before: median in the profile; of classes None.
        now: median now; of classes None.
    """

    feature: str
    psi: float
    statistic: float
    p_value: float
    before: float | None
    now: float | None


def psi(expected: npt.NDArray[Any], found: npt.NDArray[Any]) -> float:
    """Returns the population stability index of two distributions over the same bins.

    Args:
        expected: counts or shares of the bins before, of shape (bins,).
        found: those now.
    """
    before, now = (np.maximum(each / each.sum(), _LEAST) for each in (expected, found))
    return float(((now - before) * np.log(now / before)).sum())


def decile_shares(
    profile: Profile, feature: str, values: npt.NDArray[Any]
) -> tuple[Floats, Floats]:
    """Returns the shares of a feature in the deciles of the profile: there, and of ``values`` (n,).

    Both have as many entries as there are different deciles: ten, unless it has few values.
    """
    points = profile.quantiles[feature]
    deciles = np.quantile(points, np.linspace(0, 1, BINS + 1)[1:-1])
    edges = np.unique(deciles)
    before, now = (
        np.bincount(np.searchsorted(edges, each, side="right"), minlength=len(edges) + 1)
        for each in (np.asarray(points), rounded_like(points, values))
    )
    return before / len(points), now / len(values)


def feature_psi(profile: Profile, feature: str, values: npt.NDArray[Any]) -> float:
    """Returns the index of a feature's ``values`` (n,), over the profile's deciles."""
    return psi(*decile_shares(profile, feature, values))


def class_psi(profile: Profile, classes: npt.NDArray[np.intp]) -> float:
    """Returns the index of the likeliest labels ``classes`` (n,), by index."""
    expected = np.asarray(profile.classes)
    return psi(expected, np.bincount(classes, minlength=len(expected)))


def drifts(
    profile: Profile, features: Mapping[str, npt.NDArray[Any]], classes: npt.NDArray[np.intp]
) -> list[Drift]:
    """Returns the drift of every feature of ``profile``, and of the classes.

    The Kolmogorov-Smirnov statistic takes the profile's quantiles for the images: it is exact to
    a hundredth. Labels of which fewer than five images are expected are one in the chi-squared
    test.

    Args:
        profile: of the images that the artifact was made with.
        features: values of each image now, (n,), by feature.
        classes: index of the likeliest label of each, (n,).
    """
    from scipy.stats import ks_2samp, kstwobign

    found = []
    for feature, points in profile.quantiles.items():
        values = rounded_like(points, features[feature])
        distance = float(ks_2samp(points, values).statistic)
        count = profile.images * len(values) / (profile.images + len(values))
        chance = float(kstwobign.sf(np.sqrt(count) * distance))
        before, now = float(np.median(points)), float(np.median(values))
        index = feature_psi(profile, feature, values)
        found.append(Drift(feature, index, distance, chance, before, now))
    counts = np.bincount(classes, minlength=len(profile.classes))
    statistic, chance = _chi_squared(np.asarray(profile.classes), counts)
    found.append(Drift(CLASSES, class_psi(profile, classes), statistic, chance, None, None))
    return found


def corrected(p_values: npt.ArrayLike) -> Floats:
    """Returns p-values corrected for their number (Holm 1979), in the same order."""
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values)
    factors = np.arange(len(values), 0, -1)
    raised = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    result = np.empty_like(raised)
    result[order] = raised
    return result


def _chi_squared(before: npt.NDArray[Any], now: npt.NDArray[Any]) -> tuple[float, float]:
    """Returns the chi-squared statistic of two rows of counts, and its p-value."""
    from scipy.stats import chi2_contingency

    table = np.stack([before, now])
    expected = table.sum(axis=0) * min(table.sum(axis=1)) / table.sum()
    rare = expected < _RARE
    kept = np.column_stack([table[:, ~rare], table[:, rare].sum(axis=1)])
    kept = kept[:, kept.sum(axis=0) > 0]
    if kept.shape[1] < 2:
        return 0.0, 1.0
    result = chi2_contingency(kept, correction=False)
    return float(result.statistic), float(result.pvalue)
