"""Refuses decompression bombs: images that cost far more to decode than their size suggests."""

from __future__ import annotations

import io
from math import ceil

from PIL import Image

from core.images.heif import decoding_cost
from core.images.jpeg import SCAN, segments
from core.images.jpeg2000 import is_jpeg2000, read_headers
from core.images.tiff import MAX_ENTRIES, entries, is_tiff
from core.images.webp import canvas_size, is_webp

# Most passes over ``max_pixels`` pixels: a progressive JPEG needs about ten.
_PASSES = 20
# Most reads of a file: a GIF of 20 MB has 160,000 blocks of 255 bytes; each costs Pillow 10 us.
MAX_PARTS = 250_000
_STRIPS = 100_000  # Pillow allocates an object for each when it opens the file
# Limits for JPEG 2000: OpenJPEG needs 10 kB for a tile, 500 bytes for a code block or precinct, and
# 0.2 us for a packet, even an empty one.
# Shares of ``max_pixels``: libwebp takes 16 bytes a pixel, OpenJPEG up to 24, others 8 at most. So
# an image of 50 megapixels of any type takes less than 600 MiB.
_WEBP_SHARE, _JPEG2000_SHARE = 3 / 4, 1 / 2
_COMPONENTS, _TILES, _PACKETS = 4, 4096, 5_000_000
_BLOCK, _FEW_BLOCKS = 64, 10_000  # least pixels per block on average; blocks always allowed

_WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT = 256, 257, 322, 323
_LISTS = (273, 279, 324, 325)  # offsets and lengths of strips and tiles
_TEXT = (1, 2, 6, 7)  # types of one byte per value, which Pillow does not split into values


class PatientFile(io.BytesIO):
    """A file in memory that allows at most ``MAX_PARTS`` reads.

    Raises:
        OSError: from ``read``, once that number is exceeded.
    """

    _left = MAX_PARTS

    def read(self, size: int | None = -1, /) -> bytes:
        """Returns the next ``size`` bytes."""
        self._left -= 1
        if self._left < 0:
            raise OSError(f"more than {MAX_PARTS} parts")
        return super().read(size)


def bomb_in_header(data: bytes, max_pixels: int) -> str | None:
    """Returns why an image file is too costly to open, judged by its headers; None if it is not.

    Raises:
        OSError: the headers cannot be parsed, so the cost is unknown.
    """
    if is_tiff(data):
        return _bomb_in_tiff(data, max_pixels)
    if is_jpeg2000(data):
        return _bomb_in_jpeg2000(data, max_pixels)
    if is_webp(data):
        width, height = canvas_size(data)
        if width * height > (most := int(_WEBP_SHARE * max_pixels)):
            return f"{width}x{height} as WebP is {width * height} pixels, the limit is {most}"
    if data[4:8] == b"ftyp":
        largest, total = decoding_cost(data)
        if largest > max_pixels or total > _PASSES * max_pixels:
            return f"{largest} pixels in a picture and {total} in all, {_limit(max_pixels)}"
    return None


def _bomb_in_jpeg2000(data: bytes, max_pixels: int) -> str | None:
    headers = read_headers(data)
    pixels = headers.width * headers.height
    most_blocks = max(_FEW_BLOCKS, max_pixels // _BLOCK)
    for count, most, words in (
        (pixels, int(_JPEG2000_SHARE * max_pixels), "pixels of JPEG 2000"),
        (headers.components, _COMPONENTS, "components"),
        (headers.tiles, _TILES, "tiles"),
        (headers.blocks, most_blocks, "code blocks"),
        (headers.packets, _PACKETS, "packets"),
    ):
        if count > most:
            return f"{headers.width}x{headers.height} in {count} {words}, the limit is {most}"
    return None


def _bomb_in_tiff(data: bytes, max_pixels: int) -> str | None:
    found = entries(data)
    if len(found) > MAX_ENTRIES:
        return f"it has more than {MAX_ENTRIES} tags"
    values: dict[int, int | None] = {}
    for entry in found:
        if entry.length > _STRIPS and (entry.tag in _LISTS or entry.kind not in _TEXT):
            return f"its tag {entry.tag} holds {entry.length} values, the limit is {_STRIPS}"
        values.setdefault(entry.tag, entry.value if entry.length == 1 else None)
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
    """Returns why ``image``, opened but not loaded, is too costly to load; None if it is not."""
    width, height = image.size
    most = _PASSES * max_pixels
    if image.format == "JPEG":
        # Counting the byte pair is fast and never too low.
        scans = data.count(b"\xff\xda")
        if scans * width * height > most:
            scans = sum(segment.marker == SCAN for segment in segments(data))
        if scans * width * height > most:
            return f"{width}x{height} in {scans} scans, {_limit(max_pixels)}"
    if image.format == "TIFF":
        parts = [part.extents for part in getattr(image, "tile", ()) if part.extents]
        if sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in parts) > most:
            return f"{width}x{height} in {len(parts)} strips that overlap, {_limit(max_pixels)}"
    return None


def _limit(max_pixels: int) -> str:
    return f"the limit is {max_pixels} pixels at once and {_PASSES} times as many in all"
