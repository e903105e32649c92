from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from artifact.artifact import Artifact
from artifact.gates import DEFAULTS
from artifact.golden import GoldenError, check_golden
from artifact.records import Logits
from artifact.runtimes.base import load_runtime
from core.preprocess import Pixels


class Off:
    """A runtime that answers the golden logits plus ``error``."""

    name = "off"

    def __init__(self, artifact: Artifact, error: Logits) -> None:
        self.artifact = artifact
        self.error = error
        self.done = 0

    def __call__(self, pixels: Pixels) -> Logits:
        answer = (self.artifact.golden()[1] + self.error)[self.done : self.done + len(pixels)]
        self.done += len(pixels)
        return answer


def off(artifact: Artifact, *, relative: float) -> Off:
    golden = artifact.golden()[1]
    error = np.zeros_like(golden)
    error[-1, -1] = relative * np.abs(golden).max()
    return Off(artifact, error)


def test_the_runtime_that_made_it_reproduces_it(artifact_path: Path) -> None:
    artifact = Artifact.load(artifact_path)
    assert len(artifact.golden()[0]) > artifact.batch_range[1]  # so it runs in parts
    with load_runtime("ort-cpu", artifact, threads=1) as runtime:
        check_golden(runtime, artifact)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_limit_is_that_of_the_precision(artifact_path: Path, precision: str) -> None:
    limits = DEFAULTS[precision]  # type: ignore[index]
    limit = limits.golden_error
    artifact = dataclasses.replace(Artifact.load(artifact_path), limits=limits)
    check_golden(off(artifact, relative=0.9 * limit), artifact)  # type: ignore[arg-type]
    with pytest.raises(GoldenError, match="relative error of") as error:
        check_golden(off(artifact, relative=1.1 * limit), artifact)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_logits_must_be_finite(artifact_path: Path) -> None:
    artifact = Artifact.load(artifact_path)
    with pytest.raises(GoldenError, match="not finite"):
        check_golden(off(artifact, relative=float("nan")), artifact)  # type: ignore[arg-type]
