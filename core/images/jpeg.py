"""The segments of a JPEG file, and how much of a truncated one is missing (ITU-T T.81, annex B)."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from typing import NamedTuple

from PIL import Image, ImageChops

SCAN, END, COMMENT = 0xDA, 0xD9, 0xFE
APP0, EXIF, ADOBE, APP15 = 0xE0, 0xE1, 0xEE, 0xEF
_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)

_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")  # a marker with a length, or the end marker
_END_MARKER = b"\xff\xd9"

# Appended to a truncated file, each decodes to other pixels: the rows that change are missing.
_FILLINGS = (bytes(256), b"\xff\0" * 256)
_MAX_SCANS = 20
# How much a truncated one may lack: 32 rows (two rows of blocks), and 1/16 of its rows.
_MAX_LOST_ROWS, _MAX_LOST_SHARE = 32, 16


class Segment(NamedTuple):
    """A segment: its marker, the marker's offset, and the offsets of its body's start and end."""

    marker: int
    at: int
    start: int
    end: int


def is_jpeg(data: bytes) -> bool:
    """Returns whether ``data`` begins like a JPEG file."""
    return data[:3] == b"\xff\xd8\xff"


def segments(data: bytes) -> Iterator[Segment]:
    """Yields the segments up to the end marker, in the order in which libjpeg finds them."""
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
    """Returns a truncated JPEG with an end marker appended, so that decoders accept it."""
    return data + _END_MARKER


def lost_rows(data: bytes) -> tuple[int | None, int]:
    """Returns how many rows of pixels are missing at the end of a truncated JPEG, and its height.

    The first is None if whole scans are missing, so that all rows lack detail.
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


def loss(data: bytes, *, accepted: bool) -> str | None:
    """Returns why a truncated JPEG is not to be used.

    Args:
        data: the file.
        accepted: whether one that lacks little is used; else the reason says how to have that.
    """
    lost, height = lost_rows(data)
    if lost is None:
        return "more is missing than its last rows"
    if lost > min(_MAX_LOST_ROWS, height // _MAX_LOST_SHARE):
        return f"its last {lost} of {height} rows are missing"
    if accepted:
        return None
    missing = f"its last {lost} of {height} rows are" if lost else "only its end marker is"
    ways = "--truncated accept, or POCKETNETS_TRUNCATED=accept in a service, takes it"
    return f"{missing} missing; {ways}"


def _is_covered(data: bytes) -> bool:
    """Returns whether the scans, the last of which may be truncated, hold all coefficient bits."""
    missing: dict[int, list[int]] = {}  # component to missing bits of each of 64 coefficients
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
