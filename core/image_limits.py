"""Image files that cost far more to decode than the size in their header says."""

from __future__ import annotations

import io
import re
import struct
from math import ceil

from PIL import Image

# What decoding may cost, in pixels: a progressive JPEG goes over all of them about ten times.
_PASSES = 20
# A file of 20 MB in GIF's blocks of 255 bytes takes 160,000; Pillow spends 10 us on each.
_READS = 250_000
_ENTRIES = 65_535  # in a directory of a TIFF: as many as there are tags
_STRIPS = 100_000  # Pillow makes an object of each, before anything can be judged

_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")  # with a length, unlike those left out
_SCAN, _END = 0xDA, 0xD9

_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 322, 323
_LISTS = (273, 279, 324, 325)  # where strips and tiles lie, and their lengths
_TEXT = (1, 2, 6, 7)  # types of one byte a value, which are not taken apart
_INTEGERS = {3: "H", 4: "I", 16: "Q"}


class PatientFile(io.BytesIO):
    """The bytes of an image, for a reader that has an end: it reads part after part.

    Raises:
        OSError: by ``read``, once there were more parts than an honest file has.
    """

    _left = _READS

    def read(self, size: int | None = -1, /) -> bytes:
        """Returns the next ``size`` bytes."""
        self._left -= 1
        if self._left < 0:
            raise OSError(f"more than {_READS} parts")
        return super().read(size)


def bomb_in_header(data: bytes, max_pixels: int) -> str | None:
    """Returns what makes a TIFF too costly even to open; None for all else."""
    if data[:2] not in (b"II", b"MM") or not {0x2A, 0x2B} & set(data[2:4]):
        return None
    entries = _tiff_entries(data)
    if len(entries) > _ENTRIES:
        return f"it has more than {_ENTRIES} tags"
    values: dict[int, int | None] = {}
    for tag, kind, count, value in entries:
        if count > _STRIPS and (tag in _LISTS or kind not in _TEXT):
            return f"its tag {tag} holds {count} values, the limit is {_STRIPS}"
        values.setdefault(tag, value if count == 1 else None)
    if _TILE_WIDTH not in values and _TILE_HEIGHT not in values:
        return None
    sizes = [values.get(tag) for tag in (_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT)]
    width, height, across, down = (size or 0 for size in sizes)
    if not across or not down:
        return "its tiles have no size that can be read"
    tiles = ceil(width / across) * ceil(height / down)
    if across * down > max_pixels or tiles * across * down > _PASSES * max_pixels:
        return f"{width}x{height} in {tiles} tiles of {across}x{down}, {_limit(max_pixels)}"
    return None


def bomb_in_body(image: Image.Image, data: bytes, max_pixels: int) -> str | None:
    """Returns what makes ``image``, open but not loaded, too costly to load; None if nothing."""
    width, height = image.size
    most = _PASSES * max_pixels
    if image.format in ("JPEG", "MPO"):
        # The count of a byte pair is quick, and only ever too high.
        scans = data.count(b"\xff\xda")
        if scans * width * height > most and (scans := _scans(data)) * width * height > most:
            return f"{width}x{height} in {scans} scans, {_limit(max_pixels)}"
    if image.format == "TIFF":
        parts = [part.extents for part in getattr(image, "tile", ()) if part.extents]
        if sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in parts) > most:
            return f"{width}x{height} in {len(parts)} strips that overlap, {_limit(max_pixels)}"
    return None


def _limit(max_pixels: int) -> str:
    return f"the limit is {max_pixels} pixels at once and {_PASSES} times as many in all"


def _scans(data: bytes) -> int:
    """Returns how often a JPEG goes over its pixels; reads its markers as libjpeg does."""
    scans, at = 0, 2
    while (found := _MARKER.search(data, at)) and data[found.end() - 1] != _END:
        scans += data[found.end() - 1] == _SCAN
        at = found.end() + int.from_bytes(data[found.end() : found.end() + 2])
    return scans


def _tiff_entries(data: bytes) -> list[tuple[int, int, int, int | None]]:
    """Returns tag, type, count and value of the first directory's entries, as far as they go.

    A value is None unless it is one integer that stands in the entry itself.
    """
    order = "<" if data[:2] == b"II" else ">"
    big = 0x2B in data[2:4]
    start, number, entry = (8, "Q", "HHQ") if big else (4, "I", "HHI")
    entries: list[tuple[int, int, int, int | None]] = []
    try:
        (at,) = struct.unpack_from(order + number, data, start)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), data, at)
        at += 8 if big else 2
        head = struct.calcsize(order + entry)
        room = struct.calcsize(order + number)
        for _ in range(min(count, _ENTRIES + 1)):
            tag, kind, length = struct.unpack_from(order + entry, data, at)
            form = _INTEGERS.get(kind)
            value = None
            if form and struct.calcsize(order + form) <= room:
                (value,) = struct.unpack_from(order + form, data, at + head)
            entries.append((tag, kind, length, value))
            at += head + room
    except (struct.error, OverflowError):  # cut short, or points at nowhere: Pillow says so
        pass
    return entries
