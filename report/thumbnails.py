"""Thumbnails for reports."""

from __future__ import annotations

import io

from PIL import Image

SIDE = 192  # longer side in pixels
_SMALL = SIDE // 2  # smaller images are enlarged


def thumbnail(image: Image.Image) -> bytes:
    """Returns a JPEG of ``image`` whose longer side has at most 192 pixels.

    Images of less than half that size are enlarged by a whole factor, with visible square pixels.
    """
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    if (longer := max(small.size)) < _SMALL:
        times = SIDE // longer
        width, height = small.size
        small = small.resize((width * times, height * times), Image.Resampling.NEAREST)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=90)
    return file.getvalue()
