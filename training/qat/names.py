"""The names of runs of quantization-aware fine-tuning, which stand beside those of float32."""

from __future__ import annotations

SUFFIX = "-qat"


def qat_name(data: str, weights: str) -> str:
    """Returns the second part of the name of a run and of its artifacts.

    Args:
        data: name of the data set.
        weights: ``imagenet`` for published weights, by which such a run is named; a run on the
            data set ImageNet has another name, as its artifacts have.
    """
    if weights == "imagenet":
        return f"imagenet{SUFFIX}"
    return ("imagenet_run" if data == "imagenet" else data) + SUFFIX
