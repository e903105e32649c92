"""Small pictures of images, for pages."""

from __future__ import annotations

import io

from PIL import Image

SIDE = 192  # pixels of the longer side
_SMALL = SIDE // 2  # below it an image is enlarged


def thumbnail(image: Image.Image) -> bytes:
    """Returns a JPEG of ``image`` whose longer side has up to 192 pixels.

    One of less than half of that is enlarged by a whole number, so that its pixels show as squares.
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
