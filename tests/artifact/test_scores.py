from __future__ import annotations

import numpy as np
import pytest

from artifact.scores import largest, softmax


@pytest.mark.parametrize("labels", [1, 3, 1000])
@pytest.mark.parametrize("different", [1, 2, 50, 10_000])
def test_the_largest_scores_are_those_of_a_stable_sort(labels: int, different: int) -> None:
    scores = np.random.default_rng(0).integers(0, different, labels) / different
    for count in {1, min(5, labels), labels}:
        expected = np.argsort(-scores, kind="stable")[:count]
        assert largest(scores, count).tolist() == expected.tolist()


def test_scores_of_large_logits_are_finite_and_sum_to_one() -> None:
    scores = softmax(np.asarray([1e4, 1e4, -1e4], dtype=np.float32))
    assert scores.tolist() == [0.5, 0.5, 0.0]
