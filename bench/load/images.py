"""Encoded images to post to a server."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from core.errors import UserError

SIZES = ((500, 375), (1920, 1080))  # of a photo in ImageNet, and of a frame of a camera
CROPS = 4  # different ones of each photo
_QUALITY = 90


def read_images(path: Path) -> list[bytes]:
    """Returns the bytes of an image file, or of every file in a folder, in order of name."""
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise UserError(f"{path}: no image there; give a file or a folder of images")
    return [file.read_bytes() for file in files]


def photos(width: int, height: int) -> list[bytes]:
    """Returns JPEG files of this size, quality 90: crops of scikit-learn's two photos.

    The crops keep 0.75 of what fits, and are enlarged where the photos (640x427) are too small.
    """
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    files = []
    for pixels in load_sample_images().images:
        photo = Image.fromarray(pixels)
        scale = 0.75 * min(photo.width / width, photo.height / height)
        for _ in range(CROPS):
            left = rng.uniform(0, photo.width - scale * width)
            top = rng.uniform(0, photo.height - scale * height)
            box = (left, top, left + scale * width, top + scale * height)
            file = io.BytesIO()
            crop = photo.resize((width, height), Image.Resampling.BICUBIC, box=box)
            crop.save(file, "JPEG", quality=_QUALITY)
            files.append(file.getvalue())
    return files
