"""Statistics of images: brightness, contrast, saturation and sharpness."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from core.preprocess import Pixels

Values = npt.NDArray[np.float32]

STATISTICS = ("brightness", "contrast", "saturation", "sharpness")
_SIDE = 64  # rows and columns that are enough
_LUMA = np.array((0.299, 0.587, 0.114), np.float32)  # ITU-R BT.601


def image_statistics(pixels: Pixels) -> dict[str, Values]:
    """Returns the statistics of a batch of images, each float32 of shape (n,) and in [0, 1].

    ``brightness`` is the mean of the luma, ``contrast`` its standard deviation, ``saturation`` the
    mean difference between the largest and the smallest colour of a pixel, and ``sharpness`` the
    mean absolute difference of the luma of neighbouring pixels, in both directions. Alpha counts
    for none of them. Of large images every second, third, ... row and column is used, so that
    64 of each are left: it takes a fraction of a millisecond.

    Args:
        pixels: uint8 of shape (n, height, width, channels), with 1 to 4 channels as in
            :attr:`core.preprocess.Preprocess.channels`.
    """
    step = max(min(pixels.shape[1:3]) // _SIDE, 1)
    colours = pixels[:, ::step, ::step, : 3 if pixels.shape[-1] >= 3 else 1]
    grey = colours.shape[-1] == 1
    luma = (colours[..., 0].astype(np.float32) if grey else colours @ _LUMA) / 255
    spread = colours.max(axis=-1) - colours.min(axis=-1)
    steps = [np.abs(np.diff(luma, axis=axis)) for axis in (1, 2)]
    count = sum(step[0].size for step in steps)
    total = sum((step.sum(axis=(1, 2)) for step in steps), np.zeros(len(pixels), np.float32))
    return {
        "brightness": luma.mean(axis=(1, 2)),
        "contrast": luma.std(axis=(1, 2)),
        "saturation": spread.mean(axis=(1, 2), dtype=np.float32) / 255,
        "sharpness": total / max(count, 1),
    }
