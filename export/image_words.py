"""How an image is resized and cropped, in words, for what a model file says of itself."""

from __future__ import annotations

from core.image_size import in_full, sides
from core.preprocess import Preprocess


def resizing_in_words(preprocess: Preprocess) -> str:
    """Returns how an image becomes the input, in a sentence or two; sizes are height x width."""
    resize, crop = in_full(preprocess.resize), in_full(preprocess.crop)
    into = {
        "center": f"keeping its proportions, until it covers {resize} pixels",
        "squash": f"changing its proportions, to {resize} pixels",
        "border": f"keeping its proportions, until it fits into {resize} pixels",
    }[preprocess.crop_mode]
    words = (
        f"An image is resized ({preprocess.interpolation}), {into}, and its middle {crop} pixels "
        "are taken (sizes are height x width)."
    )
    smaller = any(
        kept < side for kept, side in zip(sides(preprocess.resize), preprocess.size, strict=True)
    )
    if smaller or preprocess.crop_mode == "border":
        words += f" What it does not fill is {' '.join(map(str, preprocess.fill))}."
    return words
