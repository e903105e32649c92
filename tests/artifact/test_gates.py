from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from artifact.artifact import Artifact
from artifact.gates import DEFAULTS, RANDOM_GOLDEN, limits_for
from artifact.golden import GoldenError, check_golden
from artifact.records import Logits, Precision, Weights
from artifact.runtimes.base import Runtime
from core.preprocess import Pixels


class Moved(Runtime):
    """Gives the golden logits of an artifact, moved by a fraction of the largest one."""

    name = "moved"

    def __init__(self, logits: Logits, by: float) -> None:
        self._rows = iter(logits + np.float32(by * np.abs(logits).max()))

    def __call__(self, pixels: Pixels) -> Logits:
        return np.stack([next(self._rows) for _ in pixels])

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("weights", "precision", "limit"),
    [
        ("random", "int8", RANDOM_GOLDEN),
        ("trained", "int8", DEFAULTS["int8"].golden_error),
        ("imagenet", "int8", DEFAULTS["int8"].golden_error),
        ("random", "fp32", DEFAULTS["fp32"].golden_error),
        ("random", "fp16", DEFAULTS["fp16"].golden_error),
    ],
)
def test_only_int8_of_random_weights_may_differ_by_a_third_between_runtimes(
    artifact_path: Path, weights: Weights, precision: Precision, limit: float
) -> None:
    limits = limits_for(precision, weights=weights, labelled=False)
    assert limits.golden_error == limit
    artifact = replace(Artifact.load(artifact_path), limits=limits)
    _, logits = artifact.golden()
    check_golden(Moved(logits, 0.9 * limit), artifact)
    with pytest.raises(GoldenError):
        check_golden(Moved(logits, 1.1 * limit), artifact)
