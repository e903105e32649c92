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
        "png, text inflates": (200, _png_with_text()),
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
        "jpeg, EXIF without end": (200, _jpeg_exif(200_000)),
        "tiff, XMP without end": (200, _tiff_xmp(60_000)),
        "avif, huge": (413, _with_size("AVIF", 20_000, Image.new("L", (40, 40)))),
        "avif, more coded than said": (413, _with_size("AVIF", 100, Image.new("L", (2100, 1400)))),
        "avif, many frames": (413, _avif_frames(1_000, 50)),
        "avif, frames without end": (400, _avif_samples(2**31)),
        "avif, items without end": (400, _avif_items(60_000)),
        "avif, empty boxes": (400, samples()["avif"] + b"\0\0\0\x08free" * 150_000),
        "heif, huge": (413, _with_size("HEIF", 20_000, Image.new("L", (40, 40)))),
        "heif, more coded than said": (400, _with_size("HEIF", 100, Image.new("L", (700, 700)))),
        "jpeg2000, huge": (413, jpeg2000(99_999)),
        "jpeg2000, tiles": (413, jpeg2000(1_400, tile=6)),
        "jpeg2000, components": (413, jpeg2000(1_400, components=16_000)),
        "jpeg2000, precincts": (413, jpeg2000(1_400, precinct=0x11)),
        "jpeg2000, code blocks": (413, jpeg2000(1_400, block=0)),
        "jpeg2000, layers": (413, jpeg2000(1_400, precinct=0x66, layers=65_535)),
        "jpeg2000, precincts of a tile": (413, jpeg2000(1_400, own=coding(1, 4, 0x11))),
        "jpeg2000, at its limit": (200, jpeg2000(990)),
        "jpeg2000, over its limit": (413, jpeg2000(1_400)),
        "ppm, huge": (413, b"P6 100000 100000 255\n"),
        "ppm, header without end": (400, b"P6 " + b"#" * 1_000_000),
        "ppm, comments": (400, b"P2 600 500 9\n" + b"7#\n" * 300_000),
        "ppm, odd scale": (200, b"P6 1400 1400 254\n" + bytes(3 * 1_400**2)),
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


def _jpeg_exif(count: int) -> bytes:
    """Returns an image whose EXIF block comes in ``count`` parts, each of them another head."""
    data = samples()["jpeg"]
    return data[:2] + (b"\xff\xe1\0\x1a" + b"Exif\0\0" * 4) * count + data[2:]


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


def _tiff_xmp(count: int) -> bytes:
    """Returns an image with ``count`` tags that all hold the whole file."""
    strip = [(273, LONG, 1, None), (278, LONG, 1, 1), (279, LONG, 1, 1)]
    return _tiff(1, 1, b"\0", *strip, *[(700, BYTE, 2**20, 0)] * count)


def _tiff_offsets(count: int) -> bytes:
    strips = [(278, LONG, 1, 1), (273, BYTE, count, None), (279, LONG, 1, 10)]
    return _tiff(10, 10, bytes(count), *strips)


def _with_size(format: str, side: int, image: Image.Image) -> bytes:
    """Returns ``image``, which the file says to be ``side`` x ``side``."""
    options = {"AVIF": {"speed": 10}, "HEIF": {}}[format]
    file = io.BytesIO()
    image.save(file, format, **options)
    data = bytearray(file.getvalue())
    struct.pack_into(">II", data, data.index(b"ispe") + 8, side, side)
    return bytes(data)


def _avif_frames(side: int, count: int) -> bytes:
    """Returns an image whose only item holds its one frame ``count`` times."""
    data = _with_size("AVIF", side, Image.new("L", (side, side)))
    start = data.index(b"mdat") + 4
    frame = data[start:]
    place = data.index(struct.pack(">II", start, len(frame)))
    head = bytearray(data[:start])
    struct.pack_into(">I", head, place + 4, len(frame) * count)
    struct.pack_into(">I", head, start - 8, len(frame) * count + 8)
    return bytes(head) + frame * count


def _avif_samples(count: int) -> bytes:
    data = bytearray(samples()["avif animated"])
    struct.pack_into(">II", data, data.index(b"stsz") + 8, 10, count)
    return bytes(data)


def _avif_items(count: int) -> bytes:
    data = samples()["avif"]
    at = data.index(b"iloc") - 4
    (size,) = struct.unpack_from(">I", data, at)
    items = b"".join(struct.pack(">HHHII", item, 0, 1, 0, 1) for item in range(count))
    more = struct.pack(">I4sIBBH", 16 + len(items), b"iloc", 0, 0x44, 0, count) + items
    meta = bytearray(data[data.index(b"meta") - 4 : at] + more + data[at + size :])
    struct.pack_into(">I", meta, 0, struct.unpack_from(">I", meta)[0] + len(more) - size)
    return data[: data.index(b"meta") - 4] + bytes(meta)


def _segment(marker: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, 2 + len(body)) + body


def coding(layers: int, block: int, precinct: int | None) -> bytes:
    """Returns a segment that says of a JPEG 2000 how it is cut up: its sizes as exponents of 2."""
    levels = 5
    own = bytes([precinct]) * (levels + 1) if precinct is not None else b""
    head = struct.pack(">BBHB", bool(own), 0, layers, 0)
    return _segment(0x52, head + bytes([levels, block, block, 0, 1]) + own)


def jpeg2000(
    side: int,
    *,
    tile: int | None = None,
    components: int = 1,
    precinct: int | None = None,
    block: int = 4,
    layers: int = 1,
    own: bytes = b"",
) -> bytes:
    """Returns a stream whose one tile holds nothing, and may have a header of its ``own``."""
    tile = tile or side
    size = struct.pack(">HIIIIIIII", 0, side, side, 0, 0, tile, tile, 0, 0)
    size += struct.pack(">H", components) + b"\7\1\1" * components
    steps = b"\x40" + b"\x40" * 16
    data = own + b"\xff\x93" + bytes(8)
    head = _segment(0x51, size) + coding(layers, block, precinct) + _segment(0x5C, steps)
    return (
        b"\xff\x4f"
        + head
        + _segment(0x90, struct.pack(">HIBB", 0, 12 + len(data), 0, 1))
        + data
        + b"\xff\xd9"
    )
