"""Reads PBM, PGM and PPM files, plain or raw (https://netpbm.sourceforge.net/doc/pnm.html).

Pillow parses them number by number in Python: 20 MB take ten seconds, or hours if they are full of
comments.
"""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from core.images.limits import MAX_PARTS

_COMMENT = re.compile(rb"#[^\r\n]*")
_BLANK, _DIGITS = b" \t\n\v\f\r", b"0123456789"
_BANDS = {b"P1": 1, b"P2": 1, b"P3": 3, b"P5": 1, b"P6": 3}
_PLAIN = (b"P1", b"P2", b"P3")

Samples = npt.NDArray[np.unsignedinteger] | npt.NDArray[np.int64]


def load_pnm(image: ImageFile.ImageFile, data: bytes) -> Image.Image:
    """Returns ``image``, which Pillow opened from ``data``, loaded as mode 1, L or RGB.

    Samples are scaled from 0..maxval to 0..255; 9 to 16 bits are scaled to 16, then the upper 8
    are kept.

    Raises:
        ValueError: another format, such as PFM, or missing, invalid or too large samples.
    """
    start = image.tile[0].offset
    kind, _, _, *rest = _COMMENT.sub(b"", data[:start]).split()
    if kind == b"P4":
        image.load()
        return image
    if kind not in _BANDS:
        raise ValueError(f"{kind.decode('latin-1')} is neither PBM, PGM nor PPM")
    most = int(rest[0]) if rest else 1
    shape = (image.height, image.width, 3)[: 3 if _BANDS[kind] == 3 else 2]
    count = image.height * image.width * _BANDS[kind]
    samples: Samples
    if kind in _PLAIN:
        samples = _plain(data[start:], bits=kind == b"P1")[:count]
    else:
        size = 1 if most < 256 else 2
        body = memoryview(data)[start:][: count * size]
        samples = np.frombuffer(body[: len(body) // size * size], f">u{size}")
    if len(samples) < count:
        raise ValueError(f"{len(samples)} samples of {count}")
    if samples.max(initial=0) > most:
        raise ValueError(f"a sample is {samples.max()}, and none may be above {most}")
    table = _grey_of(most)
    if kind == b"P1":
        table = table[::-1]  # 1 is black
    return Image.fromarray(table[samples].reshape(shape))


def _plain(body: bytes, *, bits: bool) -> Samples:
    """Parses decimal numbers in ``body``, or single digits if ``bits``; skips comments."""
    if body.count(b"#") > MAX_PARTS:
        raise ValueError(f"more than {MAX_PARTS} comments")
    body = _COMMENT.sub(b" ", body)
    if body.translate(None, _BLANK + _DIGITS):
        raise ValueError("its samples are no decimal numbers")
    if bits:
        return np.frombuffer(body.translate(None, _BLANK), np.uint8) - ord("0")
    return np.fromstring(body, dtype=np.int64, sep=" ")


def _grey_of(most: int) -> npt.NDArray[np.uint8]:
    """Returns the 8-bit grey value of each sample value from 0 to ``most``."""
    white = 255 if most < 256 else 65535
    grey = np.rint(np.arange(most + 1) * white / most).astype(np.uint16)
    return np.asarray(grey if most < 256 else grey >> 8, dtype=np.uint8)
