"""Figures against other code: scikit-learn, sums by hand, and loops that are plain to see."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    precision_recall_fscore_support,
    top_k_accuracy_score,
)

from predict.figures import (
    Figures,
    Indices,
    figures_of,
    paired,
    paired_interval,
)
from training.summary.calibration import Scores, calibration_bins

CLASSES = 12
LABELS = tuple(f"class {index}" for index in range(CLASSES))


def drawn(images: int = 400) -> tuple[Indices, Scores]:
    """Returns true classes, of which the last has no image, and softmax scores of all classes."""
    random = np.random.default_rng(0)
    truth = random.integers(0, CLASSES - 1, images)
    logits = random.normal(size=(images, CLASSES))
    logits[np.arange(images), truth] += random.uniform(0, 4, images)
    powers = np.exp(logits)
    return truth, powers / powers.sum(axis=1, keepdims=True)


def measured(truth: Indices, scores: Scores) -> Figures:
    best = np.argsort(-scores, axis=1)[:, :5]
    return figures_of(truth, best, scores.max(axis=1), LABELS)


def test_classes_are_scikit_learns() -> None:
    truth, scores = drawn()
    figures = measured(truth, scores)
    answers = scores.argmax(axis=1)
    assert (figures.confusion == confusion_matrix(truth, answers, labels=range(CLASSES))).all()
    precision, recall, f1, support = precision_recall_fscore_support(
        truth, answers, labels=range(CLASSES - 1)
    )
    with_images = figures.classes[:-1]
    assert [each.images for each in with_images] == support.tolist()
    assert [each.precision for each in with_images] == pytest.approx(precision.tolist())
    assert [each.recall for each in with_images] == pytest.approx(recall.tolist())
    assert [each.f1 for each in with_images] == pytest.approx(f1.tolist())
    assert figures.classes[-1].recall is None
    assert figures.macro_f1 == pytest.approx(f1.mean())
    chosen = answers != CLASSES - 1  # scikit-learn warns of answers that are no true class
    assert measured(truth[chosen], scores[chosen]).balanced_accuracy == pytest.approx(
        balanced_accuracy_score(truth[chosen], answers[chosen])
    )


def test_top_1_and_top_5_are_scikit_learns() -> None:
    truth, scores = drawn()
    figures = measured(truth, scores)
    for reached, k in ((figures.top1, 1), (figures.top5, 5)):
        assert reached == top_k_accuracy_score(truth, scores, k=k, labels=range(CLASSES))
    assert figures.right == round(figures.top1 * figures.images)
    assert figures.interval[0] < figures.top1 < figures.interval[1]


def test_ten_classes_have_no_top_5() -> None:
    truth, best = np.array([0, 1]), np.array([[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]])
    scores = np.array([0.5, 0.4])
    assert figures_of(truth, best, scores, LABELS[:10]).top5 is None
    assert figures_of(truth, best, scores, LABELS[:11]).top5 == 1.0


def test_the_calibration_error_is_that_of_guo_et_al() -> None:
    truth, scores = drawn()
    figures = measured(truth, scores)
    confidence, answers = scores.max(axis=1), scores.argmax(axis=1)
    error = 0.0
    for number in range(15):  # equation 3, a bin after the other
        inside = [
            index
            for index in range(len(truth))
            if number / 15 < confidence[index] <= (number + 1) / 15
        ]
        if inside:
            accuracy = sum(answers[index] == truth[index] for index in inside) / len(inside)
            mean = sum(confidence[index] for index in inside) / len(inside)
            error += len(inside) / len(truth) * abs(accuracy - mean)
    assert figures.calibration_error == pytest.approx(error)
    assert figures.confidence == pytest.approx(confidence.mean())
    assert sum(each.images for each in figures.bins) == len(truth)


def test_ends_of_bins() -> None:
    scores = np.array([0.0, 0.2, 0.2000001, 1.0])
    bins = calibration_bins(np.array([True, False, True, True]), scores, 5)
    assert [each.images for each in bins] == [2, 1, 0, 0, 1]
    assert (bins[0].top1, bins[0].confidence) == (0.5, 0.1)
    assert bins[2].top1 is bins[2].confidence is None


def exact(only_first: int, only_second: int) -> float:
    """Returns McNemar's exact p-value by its formula: twice the tail of fair coins, at most 1."""
    total = only_first + only_second
    tail = sum(comb(total, heads) for heads in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**total)


@pytest.mark.parametrize(("only_first", "only_second"), list(product((0, 1, 3, 9), repeat=2)))
def test_mcnemar_by_its_formula(only_first: int, only_second: int) -> None:
    cells = ((True, True, 20), (True, False, only_first), (False, True, only_second))
    cells = (*cells, (False, False, 4))
    first = np.repeat([a for a, _, _ in cells], [count for _, _, count in cells])
    second = np.repeat([b for _, b, _ in cells], [count for _, _, count in cells])
    pairs = paired(first, second, first == second)
    assert (pairs.both, pairs.neither) == (20, 4)
    assert (pairs.only_first, pairs.only_second) == (only_first, only_second)
    assert pairs.p_value == pytest.approx(exact(only_first, only_second))
    assert pairs.more_than_chance == (exact(only_first, only_second) < 0.05)
    assert pairs.difference == pytest.approx(first.mean() - second.mean())
    low, high = pairs.interval
    assert -1 <= low < pairs.difference < high <= 1
    assert pairs.agreement == pytest.approx((first == second).mean())


def test_the_interval_of_a_difference_is_that_of_newcombe() -> None:
    # His example, by method 10: 0.0569 to 0.3404.
    assert paired_interval(36, 12, 2, 0) == pytest.approx((0.0569, 0.3404), abs=5e-5)
    low, high = paired_interval(36, 2, 12, 0)
    assert (-high, -low) == pytest.approx((0.0569, 0.3404), abs=5e-5)


def test_the_interval_of_a_difference_holds_it_as_often_as_it_says() -> None:
    shares = (0.7, 0.1, 0.05, 0.15)
    draws = np.random.default_rng(0).multinomial(300, shares, 2000)
    ends = [paired_interval(*map(int, draw)) for draw in draws]
    inside = np.mean([low <= 0.05 <= high for low, high in ends])
    assert 0.94 < inside < 0.97
    both_right = paired_interval(100, 0, 0, 0)  # no width would be too good to be true
    assert both_right[0] < 0 < both_right[1] < 0.05
