"""Types of image files: suffixes of the accepted ones, names of the others."""

from __future__ import annotations

from PIL import Image

from core.image_size import Size
from core.images.colour import Mode
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

# Signatures of image and similar files: offset, bytes, type, and Pillow's name of the type if
# Pillow may be able to read it.
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
# The same for box-structured files, by brand (ISO/IEC 23008-12 and the AVIF specification). The
# major brand may be a generic one, so the compatible brands count too.
_BRANDS = (
    ((b"avif", b"avis"), "AVIF", "AVIF"),
    ((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"), "HEIC", "HEIF"),
)
_MOST_BRANDS = 60
# Types that Pillow reads only with another package, and how to install it.
_EXTRAS = {"HEIF": "the extra for it is not installed here (pip install '.[heic]')"}


def decode_image(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    least: Size | None = None,
    truncated: Truncated = "refuse",
    mode: Mode = "RGB",
) -> Image.Image:
    """Decodes as :func:`core.preprocess.decode`; for other known file types the error names them.

    Raises:
        ImageError: as ``decode`` does.
        UnsupportedImageError: ``data`` is of a known type that is not accepted, such as PDF.
    """
    try:
        return decode(data, max_pixels=max_pixels, least=least, truncated=truncated, mode=mode)
    except (TooManyPixelsError, UnsupportedImageError):
        raise
    except ImageError:
        if kind := other_type(data):
            what = f"it is {kind}: send one of {', '.join(TYPES)}"
            raise UnsupportedImageError(what) from None
        raise


def list_suffixes() -> list[str]:
    """Returns the file suffixes of the accepted types, with their dots, as Pillow lists them."""
    known = Image.registered_extensions()
    return [suffix for suffix, name in known.items() if name in FORMATS]


def other_type(data: bytes) -> str | None:
    """Returns the type of ``data`` by its first bytes, if it is one that is not accepted.

    If an extra package would make it readable, the text says so. None for any other data.
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
