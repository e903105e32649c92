"""The segments of a JPEG file, and what one lost that was cut short (ITU-T T.81, annex B)."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image, ImageChops

SCAN, END, COMMENT = 0xDA, 0xD9, 0xFE
APP0, EXIF, ADOBE, APP15 = 0xE0, 0xE1, 0xEE, 0xEF
_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)

_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # with a length, or the end
_END_MARKER = b"\xff\xd9"

# Where a file ends too early, a decoder reads what follows in its place, and shows where that is.
_FILLINGS = (bytes(256), b"\xff\0" * 256)
_MAX_SCANS = 20


class Segment(NamedTuple):
    """A segment of a file: its marker, where that lies, and where its body begins and ends."""

    marker: int
    at: int
    start: int
    end: int


def is_jpeg(data: bytes) -> bool:
    """Returns whether ``data`` begins as a JPEG does."""
    return data[:3] == b"\xff\xd8\xff"


def segments(data: bytes) -> Iterator[Segment]:
    """Yields the segments up to the end marker, as libjpeg comes upon them."""
    at = 2
    while found := _MARKER.search(data, at):
        start = found.end() + 2
        end = found.end() + int.from_bytes(data[found.end() : start])
        marker = data[found.end() - 1]
        yield Segment(marker, found.start(), start, end)
        if marker == END:
            return
        at = end


def is_cut_short(data: bytes) -> bool:
    """Returns whether a JPEG has no end marker."""
    return all(segment.marker != END for segment in segments(data))


def ended(data: bytes) -> bytes:
    """Returns a JPEG that is cut short with an end marker, which makes it whole for a decoder."""
    return data + _END_MARKER


def lost_rows(data: bytes) -> tuple[int | None, int]:
    """Returns how many of its last rows of pixels a JPEG cut short lacks, and how many it has.

    None if it lacks more than rows: the scans that are there do not make up an image.
    """
    whole = _decoded(ended(data))
    if not _is_covered(data):
        return None, whole.height
    first = whole.height
    for filling in _FILLINGS:
        changed = ImageChops.difference(whole, _decoded(ended(data + filling))).getbbox()
        if changed:
            first = min(first, changed[1])
    return whole.height - first, whole.height


def _is_covered(data: bytes) -> bool:
    """Returns whether the scans hold, or begin to hold, every bit of every coefficient."""
    missing: dict[int, list[int]] = {}  # by component: bits not yet read of the 64 coefficients
    scans = 0
    for segment in segments(data):
        body = data[segment.start : segment.end]
        if segment.marker in _FRAMES and len(body) > 5:
            missing = {component: [16] * 64 for component in body[6 : 6 + 3 * body[5] : 3]}
        elif segment.marker == SCAN and len(body) == 4 + 2 * body[0]:
            first, last, bits = body[-3], body[-2], body[-1] & 15
            for component in body[1:-3:2]:
                for index in range(first, min(last, 63) + 1):
                    missing.setdefault(component, [16] * 64)[index] = bits
            scans += 1
    return 0 < scans <= _MAX_SCANS and not any(map(any, missing.values()))


def _decoded(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
        image.load()
        return image
