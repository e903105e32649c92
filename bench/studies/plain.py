"""The classifier that the plain services of ``bench study servers`` share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from artifact.artifact import Artifact
from artifact.runtimes.base import load_runtime

RUNTIME = "ort-cpu"
VARIABLE = "STUDY_ARTIFACT"  # environment variable with the artifact's folder
PORT = "STUDY_PORT"
TOP = 5


class Classifier:
    """Runs the artifact of the environment variable, with one single-threaded call per image."""

    def __init__(self) -> None:
        self._artifact = Artifact.load(Path(os.environ[VARIABLE]))
        self._runtime = load_runtime(RUNTIME, self._artifact, threads=1)

    def __call__(self, image: Image.Image) -> dict[str, Any]:
        """Returns the five labels of ``image`` with the highest scores, ready for JSON."""
        (logits,) = self._runtime(self._artifact.preprocess(image)[np.newaxis])
        powers = np.exp(logits - logits.max())
        scores = powers / powers.sum()
        return {
            "predictions": [
                {"label": self._artifact.labels[i], "index": int(i), "score": float(scores[i])}
                for i in np.argsort(-scores)[:TOP]
            ]
        }
