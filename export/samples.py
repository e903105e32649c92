"""Images that artifacts are calibrated and compared with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image

from core.preprocess import Pixels, Preprocess, Truncated
from training.data import Sample, pixel_batches, sample_photos

CALIBRATION_IMAGES = 256
PHOTOS = 64  # real photos, used where there is no data set


@cache  # used for the weights and for verification
def photos() -> tuple[list[Sample], list[Sample]]:
    """Returns photos without labels: one set for calibration, one for verification."""
    photos: list[Image.Image] = sample_photos(2 * PHOTOS)
    unlabelled: list[Sample] = [(photo, 0) for photo in photos]
    return unlabelled[:PHOTOS], unlabelled[PHOTOS:]


def spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """Returns up to ``count`` samples, evenly spaced, so that every class is included."""
    indices = np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int)
    return [samples[index] for index in indices]


def stack(
    samples: Sequence[Sample], preprocess: Preprocess, truncated: Truncated = "refuse"
) -> Pixels:
    """Returns uint8 (n, H, W, 3) of all ``samples``."""
    batches = pixel_batches(samples, preprocess, size=len(samples), truncated=truncated)
    pixels, _ = next(batches)
    return pixels
