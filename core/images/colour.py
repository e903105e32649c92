"""An image of any mode as 8-bit RGB."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

Pixels = npt.NDArray[np.uint8]

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_WHITE = 255

# Tags of a TIFF, and two of their values.
_BITS, _PHOTOMETRIC, _FORMAT, _DARKEST, _BRIGHTEST = 258, 262, 339, 340, 341
_WHITE_IS_ZERO, _UNSIGNED = 0, 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns ``image`` as 8-bit RGB: grey is repeated, transparency is laid over white.

    Samples of 16 bits keep the upper eight. Those of 32 bits, and floats, are scaled by the range
    that a TIFF declares; without one they count as 0 to 255.

    Raises:
        ValueError: samples of 32 bits that do not lie in their range, or floats that could as well
            mean 0 to 1.
    """
    if image.mode in _SIXTEEN_BIT:
        return _from_sixteen_bits(image).convert("RGB")
    if image.mode in ("I", "F"):
        return _from_range(image).convert("RGB")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    coloured = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGB", coloured.size, "white")
    white.paste(coloured, mask=coloured)
    return white


def set_key_colour(image: Image.Image, bits: int) -> None:
    """Makes Pillow's ``transparency`` of a PNG, not yet loaded, fit the pixels it will give.

    Args:
        image: grey or RGB, if the key colour is to be of any meaning.
        bits: of a sample in the file. Pillow gives grey of 2 and 4 bits scaled to 8, and of RGB in
            16 bits the upper eight.
    """
    key = image.info.get("transparency")
    if image.mode == "L" and isinstance(key, int):
        most = 2**bits - 1
        image.info["transparency"] = (key & most) * _WHITE // most
    elif image.mode == "RGB" and isinstance(key, tuple):
        image.info["transparency"] = tuple((part >> bits - 8) & 0xFF for part in key)


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    samples, tags = np.asarray(image), _tags(image)
    (bits, *_) = tags.get(_BITS, (16,))  # Pillow leaves 12 of them as they are
    grey = _as_shown((samples >> (bits - 8)).astype(np.uint8), tags)
    key = image.info.get("transparency")
    if isinstance(key, int):
        grey[samples == key] = _WHITE
    return Image.fromarray(grey)


def _from_range(image: Image.Image) -> Image.Image:
    samples, tags = np.asarray(image), _tags(image)
    if image.mode == "I" and tags and tags.get(_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED:
        samples = samples.view(np.uint32)
    least, most = float(samples.min()), float(samples.max())
    found = f"samples from {least:g} to {most:g}"
    (dark, *_), (bright, *_) = (tags.get(tag, (0,)) for tag in (_DARKEST, _BRIGHTEST))
    if dark == bright:  # declares none
        if not 0 <= least <= most <= _WHITE or (image.mode == "F" and 0 < most <= 1):
            raise ValueError(f"{found}, and no SMaxSampleValue says which is white")
        grey = samples.astype(np.uint8)
    else:
        if not dark <= least <= most <= bright:
            raise ValueError(f"{found}, beyond {dark:g} and {bright:g} that it declares")
        grey = np.rint((samples - dark) * (_WHITE / (bright - dark))).astype(np.uint8)
    return Image.fromarray(_as_shown(grey, tags))


def _tags(image: Image.Image) -> Mapping[int, Any]:
    return image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}


def _as_shown(grey: Pixels, tags: Mapping[int, Any]) -> Pixels:
    """Returns ``grey`` with 0 as black, which Pillow sees to in TIFFs of 8 bits only."""
    return _WHITE - grey if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey
