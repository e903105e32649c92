from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import ks_2samp

from artifact.answering import Answering
from artifact.artifact import Artifact
from artifact.drift import CLASSES, class_psi, corrected, drifts, feature_psi, psi
from artifact.profile import SCORE, Profiler, profile_of
from artifact.records import QUANTILES, Profile
from artifact.validation import ArtifactError
from core.image_statistics import STATISTICS

RANDOM = np.random.default_rng(0)


def made(images: int = 2000, *, shift: float = 0.0) -> tuple[dict[str, np.ndarray], np.ndarray]:
    features = {
        SCORE: RANDOM.beta(5, 2, images),
        "brightness": RANDOM.normal(0.5 + shift, 0.1, images),
    }
    return features, RANDOM.integers(0, 4, images)


def profile(images: int = 2000) -> Profile:
    features, classes = made(images)
    return profile_of(features, np.bincount(classes, minlength=4))


def test_the_index_is_that_of_its_formula() -> None:
    before, now = np.array([50, 30, 20]), np.array([25, 25, 50])
    shares = zip((0.5, 0.3, 0.2), (0.25, 0.25, 0.5), strict=True)
    assert psi(before, now) == pytest.approx(sum((n - b) * np.log(n / b) for b, n in shares))
    assert psi(before, before) == 0
    assert 0 < psi(np.array([1, 0]), np.array([1, 1])) < np.inf


def test_what_has_changed_stands_out_and_what_has_not_does_not() -> None:
    before = profile()
    features, classes = made(1000, shift=0.05)
    classes[classes == 0] = 3
    found = {row.feature: row for row in drifts(before, features, classes)}
    assert list(found) == [SCORE, "brightness", CLASSES]
    assert found[SCORE].psi < 0.05
    assert found[SCORE].p_value > 0.01
    assert found["brightness"].psi > 0.1
    assert found["brightness"].p_value < 1e-6
    assert found["brightness"].now - found["brightness"].before == pytest.approx(0.05, abs=0.01)
    assert found[CLASSES].psi > 0.25
    assert found[CLASSES].p_value < 1e-6


def test_the_statistic_of_quantiles_is_that_of_all_images() -> None:
    features, _ = made()
    now, classes = made(700, shift=0.03)
    row = drifts(profile_of(features, np.ones(4, int)), now, classes)[1]
    exact = ks_2samp(features["brightness"], now["brightness"])
    assert row.statistic == pytest.approx(exact.statistic, abs=0.01)
    assert np.log10(row.p_value) == pytest.approx(np.log10(exact.pvalue), abs=2)


def test_without_a_change_alarms_are_rare() -> None:
    before = profile()
    alarms = 0
    for _ in range(100):
        features, classes = made(300)
        values = corrected([row.p_value for row in drifts(before, features, classes)])
        alarms += bool((values < 0.01).any())
    assert alarms <= 4


def test_p_values_are_corrected_by_holm() -> None:
    assert corrected([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert corrected([0.9, 0.8]) == pytest.approx([1.0, 1.0])


def test_a_feature_without_spread_and_a_single_class_are_no_drift() -> None:
    before = profile_of({SCORE: np.ones(50)}, np.array([50, 0]))
    score, classes = drifts(before, {SCORE: np.ones(80)}, np.zeros(80, int))
    assert (score.psi, score.statistic) == (0, 0)
    assert (classes.psi, classes.p_value) == (0, 1)
    assert feature_psi(before, SCORE, np.zeros(80)) > 1
    assert class_psi(before, np.ones(80, int)) > 1


@pytest.mark.parametrize("score", [0.001234567, 0.0314159265, 0.123456789, 1 - 1e-7, 1.0])
def test_equal_scores_are_no_drift_however_small(score: float) -> None:
    now = {SCORE: np.full(200, score), "brightness": np.full(200, 0.12345678)}
    before = profile_of(now, np.array([200]))
    for row in drifts(before, now, np.zeros(200, int)):
        assert (row.psi, row.p_value) == (0, 1), row
    assert before.quantiles[SCORE][0] == pytest.approx(score, rel=1e-4)
    other = {**now, SCORE: np.full(200, score * 0.999)}
    assert drifts(before, other, np.zeros(200, int))[0].p_value < 1e-6


@pytest.mark.parametrize("score", [0.001234567, 0.0314159265, 0.123456789])
def test_a_profile_of_an_earlier_version_is_compared_by_its_own_digits(score: float) -> None:
    now = {SCORE: np.full(200, score)}
    before = replace(
        profile_of(now, np.array([200])), quantiles={SCORE: (round(score, 5),) * QUANTILES}
    )
    assert drifts(before, now, np.zeros(200, int))[0].p_value == 1
    other = {SCORE: np.full(200, score + 2e-5)}
    assert drifts(before, other, np.zeros(200, int))[0].p_value < 1e-6


def test_the_profile_has_quantiles_of_scores_and_images_and_counts_of_classes() -> None:
    profiler = Profiler(Answering())
    logits = np.array([[0, np.log(3)], [np.log(9), 0]], np.float32)
    for number in range(2):
        pixels = np.full((1, 8, 8, 3), 51 * (number + 1), np.uint8)
        profiler.add(pixels, logits[number : number + 1])
    found = profiler.profile()
    assert (found.images, found.classes) == (2, (1, 1))
    assert tuple(found.quantiles) == (SCORE, *STATISTICS)
    assert len(found.quantiles[SCORE]) == QUANTILES
    assert found.quantiles[SCORE][0] == pytest.approx(0.75, abs=0.01)
    assert found.quantiles["brightness"][-1] == pytest.approx(0.4, abs=0.01)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"classes": (2, 0)}, "2 classes of 2 images"),
        ({"classes": (1, 0, 0)}, "3 classes of 1 images"),
        ({"quantiles": {}}, "profile is of"),
        ({"quantiles": dict.fromkeys((SCORE, *STATISTICS), (1.0,) * 99 + (0.0,))}, "not rise"),
    ],
)
def test_a_manifest_with_a_profile_that_cannot_be_is_refused(
    make_artifact: Callable[..., Path], changes: dict[str, object], words: str
) -> None:
    features = {name: np.linspace(0, 1, 2) for name in (SCORE, *STATISTICS)}
    whole = profile_of(features, np.array([1, 1, 0]))
    Artifact.load(make_artifact(profile=whole))
    with pytest.raises(ArtifactError, match=words):
        make_artifact(profile=replace(whole, **changes))
