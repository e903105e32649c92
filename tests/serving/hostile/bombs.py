"""Small files that promise, or hold, far more than their size."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Sequence
from functools import cache

from PIL import Image
from samples import chunk, png, samples

BYTE, SHORT, LONG, RATIONAL = 1, 3, 4, 5


@cache
def bombs() -> dict[str, tuple[int, bytes]]:
    """Returns by name the status that each must get, and the file."""
    return {
        "png, 10 gigapixels": (413, png(100_000, 100_000, 8, 2, chunk(b"IDAT", b""))),
        "png, zeros inflate": (413, _png_of_zeros(20_000)),
        "png, at the limit": (200, _png_of_zeros(1_400)),
        "png, text inflates": (400, _png_with_text()),
        "png, empty chunks": (400, png(1, 1, 8, 0, chunk(b"teXt", b"") * 300_000, _pixel())),
        "webp, huge canvas": (413, _webp()),
        "gif, huge screen": (413, _gif_screen()),
        "gif, comments": (400, _gif_comments()),
        "bmp, huge": (413, _bmp()),
        "tiff, huge": (413, _tiff(100_000, 100_000, b"", (273, LONG, 1, None))),
        "tiff, huge tile": (413, _tiff_tile(20_000)),
        "tiff, overlapping strips": (413, _tiff_strips(1_000, 4_000)),
        "tiff, strips without end": (413, _tiff_offsets(500_000)),
        "jpeg, scans": (413, _jpeg_scans(1_000, 2_000)),
    }


def _pixel() -> bytes:
    return chunk(b"IDAT", zlib.compress(b"\0\0"))


def _png_of_zeros(side: int) -> bytes:
    row = bytes(1 + side // 8)
    packer = zlib.compressobj(9)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    return png(side, side, 1, 0, chunk(b"IDAT", data))


def _png_with_text() -> bytes:
    text = zlib.compress(bytes(1 << 20))
    return png(1, 1, 8, 0, *[chunk(b"zTXt", b"%d\0\0" % i + text) for i in range(80)], _pixel())


def _webp() -> bytes:
    """Returns an animation whose canvas is 16384 pixels wide and high."""
    data = bytearray(samples()["webp animated"])
    data[24:30] = b"\xff\x3f\0" * 2
    return bytes(data)


def _gif_screen() -> bytes:
    data = bytearray(samples()["gif animated"])
    struct.pack_into("<HH", data, 6, 65535, 65535)
    return bytes(data)


def _gif_comments() -> bytes:
    data = samples()["gif"]
    at = data.index(b",", 13 + 3 * (2 << (data[10] & 7)))
    return data[:at] + b"!\xfe\1a\0" * 300_000 + data[at:]


def _bmp() -> bytes:
    data = bytearray(samples()["bmp"])
    struct.pack_into("<ii", data, 18, 40_000, -40_000)
    return bytes(data)


def _jpeg_scans(side: int, count: int) -> bytes:
    """Returns a progressive image whose last scan, some bytes of it, comes ``count`` times."""
    file = io.BytesIO()
    Image.new("L", (side, side), 128).save(file, "JPEG", progressive=True)
    data = file.getvalue()
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * count + data[-2:]


Entry = tuple[int, int, int, int | None]  # tag, type, count, value: None points at the data


def _tiff(width: int, height: int, data: bytes, *more: Entry, compression: int = 1) -> bytes:
    usual = ((256, width), (257, height), (258, 8), (259, compression), (262, 1), (277, 1))
    entries: Sequence[Entry] = sorted([*((tag, LONG, 1, value) for tag, value in usual), *more])
    start = 8 + 2 + 12 * len(entries) + 4
    packed = [
        struct.pack("<HHII", tag, kind, count, start if value is None else value)
        for tag, kind, count, value in entries
    ]
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(packed)) + b"".join(packed) + bytes(4) + data


def _tiff_tile(side: int) -> bytes:
    """Returns an image of 100 x 100 pixels in one tile that inflates to ``side`` x ``side``."""
    packer, row = zlib.compressobj(1), bytes(side)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    sizes = [(tag, LONG, 1, value) for tag, value in ((322, side), (323, side), (325, len(data)))]
    return _tiff(100, 100, data, *sizes, (324, LONG, 1, None), compression=8)


def _tiff_strips(side: int, count: int) -> bytes:
    """Returns an image whose strips are all the same rows of the file, again and again."""
    data = struct.pack("<I", 134) * count + bytes(side * side)
    strips = [(278, LONG, 1, side - 1), (273, LONG, count, None), (279, LONG, 1, side * side)]
    return _tiff(side, side, data, *strips)


def _tiff_offsets(count: int) -> bytes:
    strips = [(278, LONG, 1, 1), (273, BYTE, count, None), (279, LONG, 1, 10)]
    return _tiff(10, 10, bytes(count), *strips)
