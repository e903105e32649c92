"""Train, export, run and evaluate image classifiers from Python.

>>> import pocketnets
>>> pocketnets.train("mobilenet_v3", "digits")
>>> pocketnets.export("mobilenet_v3", data="digits")
>>> with pocketnets.load("artifacts/mobilenet_v3_large-digits/onnx-fp32") as classify:
...     classify("digit.png").label

Functions import their dependencies when they are called, and types are imported on first access:
loading an artifact and predicting with it does not import torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pocketnets.api import cross_validate, evaluate, export, load, predict, train

if TYPE_CHECKING:
    from artifact.artifact import Artifact
    from core.errors import UserError
    from core.preprocess import ImageError, Preprocess
    from predict.classifier import Classifier, Prediction
    from predict.evaluation import Evaluation
    from predict.pipeline import Row
    from training.checkpoint import Checkpoint

__all__ = [
    "Artifact",
    "Checkpoint",
    "Classifier",
    "Evaluation",
    "ImageError",
    "Prediction",
    "Preprocess",
    "Row",
    "UserError",
    "cross_validate",
    "evaluate",
    "export",
    "load",
    "predict",
    "train",
]

_TYPES = {
    "Artifact": "artifact.artifact",
    "Checkpoint": "training.checkpoint",
    "Classifier": "predict.classifier",
    "Evaluation": "predict.evaluation",
    "ImageError": "core.preprocess",
    "Prediction": "predict.classifier",
    "Preprocess": "core.preprocess",
    "Row": "predict.pipeline",
    "UserError": "core.errors",
}


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> object:
    if name not in _TYPES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from core.lazy import resolve

    return resolve(f"{_TYPES[name]}:{name}")
