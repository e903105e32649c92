"""The picture of what augmentation does to the first training images."""

from __future__ import annotations

import io
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

if TYPE_CHECKING:
    from training.data import ImageData
    from training.recipe import Recipe

AUGMENTATION = "augmentation.png"
SHOWN = 16  # images
_PAIRS = 4  # in a row
_SIDE, _GAP, _WIDE = 112, 4, 16  # pixels: of an image, within a pair, and between pairs


def augmentation_png(data: ImageData, recipe: Recipe) -> bytes:
    """Returns a PNG of the first images of the first epoch, each beside how training gets it.

    The left one of a pair is the image as it is validated. Images that cannot be read are left out.

    Args:
        data: the data set.
        recipe: the recipe; mixup and cutmix are drawn among the images shown.
    """
    from training.augment import mixed
    from training.loader import Loaders, Samples

    keys = list(islice(Loaders(data, recipe).train_dataloader().sampler, SHOWN))
    plain, augmented = (
        [Samples(data.train, recipe, augment=augment)[key] for key in keys]
        for augment in (False, True)
    )
    pairs = [
        (before[0], after[0])
        for before, after in zip(plain, augmented, strict=True)
        if isinstance(before, tuple) and isinstance(after, tuple)
    ]
    rows = -(-len(pairs) // _PAIRS)
    pitch = 2 * _SIDE + _GAP + _WIDE
    size = (_PAIRS * pitch + _WIDE, rows * (_SIDE + _WIDE) + _WIDE)
    sheet = Image.new("RGB", size, "white")
    if not pairs:
        return _png(sheet)
    before, after = zip(*pairs, strict=True)
    with torch.random.fork_rng(devices=[]):  # the run draws as if no picture was made
        torch.default_generator.manual_seed(recipe.seed)
        stack = torch.stack(after)
        batch, _ = mixed(stack, torch.zeros(len(stack), dtype=torch.int64), recipe.at(0), 1)
    for place, images in enumerate(zip(before, batch.round().to(torch.uint8), strict=True)):
        row, column = divmod(place, _PAIRS)
        for side, image in enumerate(images):
            tile = _tile(image.numpy())
            left = _WIDE + column * pitch + side * (_SIDE + _GAP)
            sheet.paste(tile, (left, _WIDE + row * (_SIDE + _WIDE)))
    return _png(sheet)


def _tile(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Image.Image:
    """Returns the image at the size of a tile; pixels of small images stay visible."""
    image = Image.fromarray(pixels)
    kind = Image.Resampling.NEAREST if image.width < _SIDE else Image.Resampling.LANCZOS
    return image.resize((_SIDE, _SIDE), kind)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()
