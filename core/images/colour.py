"""Converts images of any mode to 8-bit grey or RGB, with transparency or without."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

Pixels = npt.NDArray[np.uint8]
Mode = Literal["L", "LA", "RGB", "RGBA"]

_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
_WHITE = 255

# TIFF tags, and two of their values.
_BITS, _PHOTOMETRIC, _FORMAT, _DARKEST, _BRIGHTEST = 258, 262, 339, 340, 341
_WHITE_IS_ZERO, _UNSIGNED = 0, 1


def to_rgb(image: Image.Image) -> Image.Image:
    """Returns ``image`` as 8-bit RGB: grey is repeated, transparency is composited over white.

    16-bit samples keep their upper 8 bits. 32-bit and float samples are scaled by the range that
    the TIFF declares, or taken as 0..255 if it declares none.

    Raises:
        ValueError: 32-bit or float samples outside that range, or floats within 0..1 without a
            declared range, as they could mean either.
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


def to_mode(image: Image.Image, mode: Mode) -> Image.Image:
    """Returns ``image`` in ``mode``, 8 bits per channel.

    Transparency stays in the modes that have it, LA and RGBA, and is composited over white in the
    others; what is opaque gets it at its most. Other samples are as :func:`to_rgb` has them.

    Raises:
        ValueError: as :func:`to_rgb` does.
    """
    if mode == "RGB":
        return to_rgb(image)
    transparent = image.has_transparency_data and image.mode not in _SIXTEEN_BIT
    if mode == "L" or not transparent:
        return image if image.mode == mode and not transparent else to_rgb(image).convert(mode)
    image = image.convert("LA") if image.mode == "La" else image
    return image.convert("RGBA").convert(mode)


def set_key_colour(image: Image.Image, bits: int) -> None:
    """Scales ``info["transparency"]`` of a PNG as Pillow will scale its samples on loading.

    Args:
        image: opened but not loaded; only grey and RGB images are changed.
        bits: bits per sample in the file. Pillow scales 2-bit and 4-bit grey to 8 bits, and keeps
            the upper 8 bits of 16-bit RGB.
    """
    key = image.info.get("transparency")
    if image.mode == "L" and isinstance(key, int):
        most = 2**bits - 1
        image.info["transparency"] = (key & most) * _WHITE // most
    elif image.mode == "RGB" and isinstance(key, tuple):
        image.info["transparency"] = tuple((part >> bits - 8) & 0xFF for part in key)


def _from_sixteen_bits(image: Image.Image) -> Image.Image:
    samples, tags = np.asarray(image), _tags(image)
    (bits, *_) = tags.get(_BITS, (16,))  # Pillow does not scale 12-bit samples
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
    if dark == bright:  # no range is declared
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
    """Inverts ``grey`` if 0 is white in the TIFF; Pillow does so only for 8-bit samples."""
    return _WHITE - grey if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO else grey
