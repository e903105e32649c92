"""Estimates the cost of decoding a JPEG 2000 image from its headers (ITU-T T.800, annex A).

OpenJPEG allocates all tiles, precincts and code blocks before it reads the data, so a file of 200
bytes can cost gigabytes of memory and hours of time.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil
from typing import NamedTuple

from core.images.boxes import Numbers, boxes

_STREAM = b"\xff\x4f\xff\x51"
_SIZE, _CODING, _COMPONENT, _TILE, _DATA, _END = 0x51, 0x52, 0x53, 0x90, 0x93, 0xD9
_MAX_SEGMENTS = 250_000


class Headers(NamedTuple):
    """The size of an image, and upper bounds of the numbers of its parts."""

    width: int
    height: int
    components: int
    tiles: int
    blocks: int  # code blocks and precincts, over all tiles and components
    packets: int  # precincts times layers, over all tiles and components


def is_jpeg2000(data: bytes) -> bool:
    """Returns whether ``data`` begins like a JPEG 2000 file or codestream."""
    return data[:4] == _STREAM or data[4:8] == b"jP  "


def read_headers(data: bytes) -> Headers:
    """Reads the main header and all tile headers of a file or codestream.

    Raises:
        OSError: headers are broken, missing or too many.
    """
    try:
        return _read_headers(data)
    except IndexError:
        raise OSError("its headers are broken") from None


def _read_headers(data: bytes) -> Headers:
    size: _Size | None = None
    blocks = precincts = layers = 0
    for marker, take in _segments(data, _start(data)):
        if marker == _SIZE:
            size = _read_size(take)
        elif marker in (_CODING, _COMPONENT):
            if size is None:
                raise IndexError("no size")
            if marker == _COMPONENT:
                take(1 if size.components < 257 else 2)
            own_precincts = bool(take(1) & 1)
            if marker == _CODING:
                take(1)
                layers = max(layers, take(2))
                take(1)
            more = _read_coding(take, size, own_precincts)
            blocks, precincts = max(blocks, more[0]), max(precincts, more[1])
    if size is None:
        raise IndexError("no size")
    parts = size.tiles * size.components
    return Headers(
        size.width,
        size.height,
        size.components,
        size.tiles,
        blocks * parts,
        precincts * parts * layers,
    )


class _Size(NamedTuple):
    width: int
    height: int
    across: int  # width of a tile
    down: int  # height of a tile
    tiles: int
    components: int


def _start(data: bytes) -> int:
    """Returns the offset of the codestream."""
    if data[:4] == _STREAM:
        return 0
    for box in boxes(data):
        if box.kind == b"jp2c":
            return box.start
    raise IndexError("no stream")


def _segments(data: bytes, start: int) -> Iterator[tuple[int, Numbers]]:
    """Yields marker and body of each segment of the main header and of all tile headers."""
    at = start + 2
    next_tile = len(data)
    for _ in range(_MAX_SEGMENTS):
        marker = data[at : at + 2]
        if len(marker) < 2 or marker[1] == _END:
            return
        if marker[0] != 0xFF:
            raise IndexError("no marker")
        if marker[1] == _DATA:
            if next_tile <= at:
                raise IndexError("a tile within a tile")
            at = next_tile
            continue
        take = Numbers(data, at + 2)
        length = take(2)
        if marker[1] == _TILE:
            take(2)
            size = take(4)
            next_tile = at + size if size else len(data)
            take = Numbers(data, at + 4)
        if length < 2:
            raise IndexError("no length")
        yield marker[1], take
        at += 2 + length
    raise OSError(f"more than {_MAX_SEGMENTS} segments")


def _read_size(take: Numbers) -> _Size:
    take(2)
    right, bottom, left, top, across, down, tiles_left, tiles_top = (take(4) for _ in range(8))
    components = take(2)
    width, height = right - left, bottom - top
    if width < 1 or height < 1 or not across or not down:
        raise IndexError("no size")
    tiles = ceil((right - tiles_left) / across) * ceil((bottom - tiles_top) / down)
    return _Size(width, height, min(across, width), min(down, height), tiles, components)


def _read_coding(take: Numbers, size: _Size, own_precincts: bool) -> tuple[int, int]:
    """Returns the number of code blocks and precincts, and of precincts, per tile component."""
    levels = take(1)
    block_width, block_height = (take(1) & 15) + 2, (take(1) & 15) + 2
    take(2)
    blocks = precincts = 0
    for level in range(levels + 1):
        across, down = 15, 15
        if own_precincts:
            exponents = take(1)
            across, down = exponents & 15, exponents >> 4
        width, height = (_shrunk(side, levels - level) for side in (size.across, size.down))
        here = _shrunk(width, across) * _shrunk(height, down)
        precincts += here
        bands = 1
        if level:
            bands, width, height = 3, _shrunk(width, 1), _shrunk(height, 1)
            across, down = max(0, across - 1), max(0, down - 1)
        blocks += here + bands * max(
            here,
            _shrunk(width, min(across, block_width)) * _shrunk(height, min(down, block_height)),
        )
    return blocks, precincts


def _shrunk(side: int, halvings: int) -> int:
    return -(-side >> halvings)  # rounded up
