"""Types of image files: suffixes of those that are taken, names of those that are not."""

from __future__ import annotations

from PIL import Image

from core.preprocess import (
    FORMATS,
    MAX_PIXELS,
    TYPES,
    ImageError,
    TooManyPixelsError,
    Truncated,
    UnsupportedImageError,
    decode,
)

# First bytes of what people take for an image: where they lie, what it is, and what Pillow calls
# it if it may be one of ours.
_MAGIC = (
    (0, b"\0\0\0\x0cjP  ", "JPEG 2000", "JPEG2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000", "JPEG2000"),
    (0, b"\xff\x0a", "JPEG XL", None),
    (0, b"\0\0\0\x0cJXL ", "JPEG XL", None),
    (0, b"\0\0\1\0", "ICO", None),
    (0, b"8BPS", "PSD", None),
    (0, b"%PDF", "PDF", None),
    (0, b"%!PS", "PostScript", None),
    (0, b"<svg", "SVG", None),
    (0, b"<?xml", "SVG", None),
    (0, b"\x1f\x8b", "gzip, sent without Content-Encoding: gzip", None),
)
# The same for files in boxes, by brand (ISO/IEC 23008-12, and the AVIF specification). The first
# brand may be a general one, and a telling one among those that the file is compatible with.
_BRANDS = (
    ((b"avif", b"avis"), "AVIF", "AVIF"),
    ((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC", "HEIF"),
)
_MOST_BRANDS = 60
# What Pillow reads with another package alone, and how to get that.
_EXTRAS = {"HEIF": "the extra for it is not installed here (pip install '.[heic]')"}


def decode_image(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    shorter: int | None = None,
    truncated: Truncated = "refuse",
) -> Image.Image:
    """Returns what :func:`core.preprocess.decode` does; its errors name what else ``data`` is.

    Raises:
        ImageError: as ``decode``; of a known type that is not taken an UnsupportedImageError.
    """
    try:
        return decode(data, max_pixels=max_pixels, shorter=shorter, truncated=truncated)
    except (TooManyPixelsError, UnsupportedImageError):
        raise
    except ImageError:
        if kind := other_type(data):
            what = f"it is {kind}: send one of {', '.join(TYPES)}"
            raise UnsupportedImageError(what) from None
        raise


def list_suffixes() -> list[str]:
    """Returns the suffixes of the accepted types' files, each with its dot, as Pillow has them."""
    known = Image.registered_extensions()
    return [suffix for suffix, name in known.items() if name in FORMATS]


def other_type(data: bytes) -> str | None:
    """Returns what ``data`` is by its first bytes, if people take it for an image and we do not.

    Where an extra package would make it one of ours, the answer says so.
    """
    name, pillow_name = _recognize(data)
    if pillow_name in FORMATS:
        return None
    if pillow_name in _EXTRAS:
        return f"{name}, and {_EXTRAS[pillow_name]}"
    return name


def _recognize(data: bytes) -> tuple[str | None, str | None]:
    for offset, magic, name, pillow_name in _MAGIC:
        if data.startswith(magic, offset):
            return name, pillow_name
    if data.startswith(b"ftyp", 4):
        end = min(int.from_bytes(data[:4]), 16 + 4 * _MOST_BRANDS)
        brands = {data[8:12], *(data[start : start + 4] for start in range(16, end, 4))}
        for known, name, pillow_name in _BRANDS:
            if brands.intersection(known):
                return name, pillow_name
    return None, None
