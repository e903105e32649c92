"""What can be done to the bytes of an image."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from itertools import islice
from random import Random

from samples import chunk, samples

from core.images.boxes import all_boxes

Field = tuple[int, str]  # offset, and struct format of one number

_EXTREME = (0, 1, 2, 7, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 2**24 - 1)
EXTREME = (*_EXTREME, 2**30, 2**31 - 1, 2**31, 2**32 - 1)
HEAD = 64  # bytes in which every format keeps what decides


def flip_bits(data: bytes, dice: Random) -> bytes:
    spoiled = bytearray(data)
    reach = dice.choice([HEAD, len(data)])
    for _ in range(dice.choice([1, 1, 2, 8, 64])):
        spoiled[dice.randrange(min(reach, len(data)))] ^= 1 << dice.randrange(8)
    return bytes(spoiled)


def cut(data: bytes, dice: Random) -> bytes:
    return data[: dice.choice([1, 2, 12, len(data) - 1, dice.randrange(len(data))])]


def cut_out(data: bytes, dice: Random) -> bytes:
    start, end = sorted(dice.randrange(len(data)) for _ in range(2))
    return data[:start] + data[end:]


def overwrite(data: bytes, dice: Random) -> bytes:
    start, length = dice.randrange(len(data)), dice.choice([1, 2, 4, 8, 256])
    filling = dice.choice([b"\0", b"\x7f", b"\xff", dice.randbytes(1)]) * length
    return data[:start] + filling + data[start + length :]


def splice(data: bytes, dice: Random) -> bytes:
    """Returns the start of one file and the end of another."""
    other = dice.choice(list(samples().values()))
    return data[: dice.randrange(len(data))] + other[dice.randrange(len(other)) :]


def repeat(data: bytes, dice: Random) -> bytes:
    """Returns ``data`` with a part of it, often a whole chunk or segment, many times over."""
    places = [at for at, _ in fields(data)] or [0]
    start = dice.choice([dice.randrange(len(data)), dice.choice(places)])
    end = dice.choice([start + dice.randint(1, 64), *[at for at in places if at > start]])
    return data[:end] + data[start:end] * dice.choice([1, 2, 20, 200]) + data[end:]


def move(data: bytes, dice: Random) -> bytes:
    start, end = sorted(dice.randrange(len(data)) for _ in range(2))
    rest = data[:start] + data[end:]
    to = dice.randrange(len(rest) + 1)
    return rest[:to] + data[start:end] + rest[to:]


def set_fields(data: bytes, dice: Random) -> bytes:
    """Returns ``data`` with extreme numbers in one to four of its fields, checksums mended."""
    places = list(fields(data))
    spoiled = bytearray(data)
    for at, form in dice.sample(places, min(len(places), dice.choice([1, 1, 2, 4]))):
        bits = 8 * struct.calcsize(form)
        struct.pack_into(form, spoiled, at, dice.choice(EXTREME) % 2**bits)
    return mend(bytes(spoiled)) if dice.random() < 0.8 else bytes(spoiled)


SPOILS: tuple[Callable[[bytes, Random], bytes], ...] = (
    *(set_fields,) * 4,
    *(flip_bits, cut, cut_out, overwrite, splice, repeat, move),
)


def spoil(data: bytes, dice: Random) -> bytes:
    """Returns ``data`` after one of :data:`SPOILS`, at times two."""
    for _ in range(dice.choice([1, 1, 2])):
        data = dice.choice(SPOILS)(data or b"\0", dice)
    return mend(data) if dice.random() < 0.3 else data


def fields(data: bytes) -> Iterator[Field]:
    """Yields the numbers in the headers of an image: sizes, lengths, counts, offsets."""
    for at, form in _fields(data):
        if at + struct.calcsize(form) <= len(data):
            yield at, form


def _fields(data: bytes) -> Iterator[Field]:
    if data[:3] == b"\xff\xd8\xff":
        yield from _jpeg(data)
    elif data[:4] == b"\x89PNG":
        yield from _png(data)
    elif data[:4] == b"RIFF":
        yield from _webp(data)
    elif data[:3] == b"GIF":
        yield from _gif(data)
    elif data[:2] == b"BM":
        yield from ((at, "<I") for at in (2, 10, 14, 18, 22, 30, 34, 38, 42, 46, 50))
        yield from ((at, "<H") for at in (26, 28))
    elif data[4:8] in (b"ftyp", b"jP  "):
        yield from _boxes(data)
    if (at := data.find(b"\xff\x4f\xff\x51")) >= 0:
        yield from _jpeg2000(data, at)
    for found in re.finditer(rb"II\*\0|MM\0\*", data):  # TIFF, and EXIF anywhere
        yield from _tiff(data, found.start())
    if (at := data.find(b"acsp")) >= 36:  # an ICC profile: length, then 36 bytes on its magic
        yield from ((at - 36 + offset, ">I") for offset in (0, 12, 16, 128, 132, 136, 140))


def mend(data: bytes) -> bytes:
    """Returns ``data`` with the right checksums, if it is a PNG: else nobody reads further."""
    if data[:4] != b"\x89PNG":
        return data
    mended, at = data[:8], 8
    while at + 8 <= len(data):
        (length,) = struct.unpack_from(">I", data, at)
        if at + 12 + length > len(data):
            body = data[at + 8 :]
            checksum = struct.pack(">I", zlib.crc32(data[at + 4 : at + 8] + body))
            return mended + data[at : at + 8] + body + checksum
        mended += chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length])
        at += 12 + length
    return mended


def _jpeg(data: bytes) -> Iterator[Field]:
    at = 2
    while at + 10 < len(data) and data[at] == 0xFF:
        yield at + 2, ">H"
        if 0xC0 <= data[at + 1] <= 0xC2:
            yield from ((at + 4, "B"), (at + 5, ">H"), (at + 7, ">H"), (at + 9, "B"))
            yield from ((at + offset, "B") for offset in range(10, min(22, len(data) - at)))
        elif data[at + 1] in (0xC4, 0xDB, 0xDA, 0xDD):
            yield from ((at + offset, "B") for offset in range(4, min(24, len(data) - at)))
        at += 2 + int.from_bytes(data[at + 2 : at + 4])


def _png(data: bytes) -> Iterator[Field]:
    at = 8
    while at + 12 <= len(data):
        yield at, ">I"
        length = int.from_bytes(data[at : at + 4])
        kind = data[at + 4 : at + 8]
        if kind == b"IHDR":
            yield from ((at + 8, ">I"), (at + 12, ">I"))
            yield from ((at + offset, "B") for offset in range(16, 21))
        elif kind in (b"acTL", b"fcTL"):
            yield from ((at + 8 + offset, ">I") for offset in range(0, min(length, 64) - 3, 4))
        at += 12 + length


def _webp(data: bytes) -> Iterator[Field]:
    yield 4, "<I"
    at = 12
    while at + 18 < len(data):
        yield at + 4, "<I"
        kind, length = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if kind == b"VP8 ":
            yield from ((at + 14, "<H"), (at + 16, "<H"))
        elif kind in (b"VP8L", b"VP8X", b"ANMF", b"ANIM"):
            yield from ((at + offset, "<H") for offset in range(8, 18, 2))
        at += 8 + length + length % 2


def _gif(data: bytes) -> Iterator[Field]:
    yield from ((6, "<H"), (8, "<H"), (10, "B"), (11, "B"))
    for found in re.finditer(rb"\x00,(?=.{9})", data, re.DOTALL):  # after a block's end, a frame
        at = found.start() + 2
        yield from ((at + offset, "<H") for offset in (0, 2, 4, 6))
        yield at + 8, "B"
        if at + 10 < len(data):
            yield from ((at + 9, "B"), (at + 10, "B"))  # LZW code size, length of the block


def _boxes(data: bytes) -> Iterator[Field]:
    for box in islice(all_boxes(data), 200):
        yield box.at, ">I"
        if box.kind != b"mdat":
            yield from ((at, "B") for at in range(box.start, min(box.end, box.start + 8)))
            yield from ((at, ">H") for at in range(box.start, min(box.end, box.start + 64), 2))
            yield from ((at, ">I") for at in range(box.start, min(box.end, box.start + 64), 4))
        else:
            yield from ((at, "B") for at in range(box.start, min(box.end, box.start + 16)))


def _jpeg2000(data: bytes, start: int) -> Iterator[Field]:
    yield from ((start + offset, ">I") for offset in range(8, 40, 4))
    yield start + 40, ">H"
    for marker in (b"\xff\x51", b"\xff\x52", b"\xff\x5c", b"\xff\x90"):
        if (at := data.find(marker, start)) >= 0:
            yield at + 2, ">H"
            yield from ((at + offset, "B") for offset in range(4, 20))


def _tiff(data: bytes, start: int) -> Iterator[Field]:
    end = "<" if data[start : start + 1] == b"I" else ">"
    if start + 8 > len(data):
        return
    yield start + 4, end + "I"
    at = start + int(struct.unpack_from(end + "I", data, start + 4)[0])
    if at + 2 > len(data):
        return
    yield at, end + "H"
    for entry in range(struct.unpack_from(end + "H", data, at)[0]):
        place = at + 2 + 12 * entry
        if place + 12 > len(data):
            return
        yield from ((place, end + "H"), (place + 2, end + "H"))
        yield from ((place + 4, end + "I"), (place + 8, end + "I"), (place + 8, end + "H"))
