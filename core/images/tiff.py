"""Reads the first directory of a TIFF file or of an EXIF block, which has the same structure."""

from __future__ import annotations

import struct
from collections.abc import Container
from typing import NamedTuple

MAX_ENTRIES = 65_535  # of a directory: the number of possible tags

ORIENTATION = 274
_BITS, _SAMPLES, _FORMAT = 258, 277, 339
_KINDS = {1: "unsigned", 2: "signed", 3: "float", 5: "complex", 6: "complex float"}
INTEGERS = {3: "H", 4: "I", 16: "Q"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}


class Entry(NamedTuple):
    """An entry of a directory, with its offset."""

    at: int
    tag: int
    kind: int
    length: int  # number of values
    place: int  # offset of its values: inside the entry itself if they fit
    value: int | None  # the first value, if it is an unsigned integer inside the file


def is_tiff(data: bytes) -> bool:
    """Returns whether ``data`` begins like a TIFF or BigTIFF file."""
    return data[:2] in (b"II", b"MM") and bool({0x2A, 0x2B} & set(data[2:4]))


def entries(data: bytes) -> list[Entry]:
    """Returns the readable entries of the first directory, at most ``MAX_ENTRIES + 1``."""
    layout = _layout(data)
    found: list[Entry] = []
    try:
        at, count = _directory(data, layout)
        for _ in range(min(count, MAX_ENTRIES + 1)):
            tag, kind, length, place = struct.unpack_from(layout.entry, data, at)
            size = _SIZES.get(kind, 1)
            if length * size <= layout.room:
                place = at + layout.entry_size - layout.room
            value = None
            if kind in INTEGERS and place + size <= len(data):
                (value,) = struct.unpack_from(layout.order + INTEGERS[kind], data, place)
            found.append(Entry(at, tag, kind, length, place, value))
            at += layout.entry_size
    except (struct.error, OverflowError):  # truncated, or an offset outside the file
        pass
    return found


def orientation_of(data: bytes) -> int | None:
    """Returns the orientation (1..8) in the first directory; None if absent or unreadable."""
    for entry in entries(data) if is_tiff(data) else ():
        if entry.tag == ORIENTATION:
            return entry.value if entry.length == 1 and entry.value in range(1, 9) else None
    return None


def with_tags_only(data: bytes, tags: Container[int]) -> bytes:
    """Returns a TIFF with only the first directory, reduced to ``tags``.

    Values keep their offsets. A file with a truncated directory is returned unchanged.
    """
    layout, found = _layout(data), entries(data)
    try:
        at, count = _directory(data, layout)
    except (struct.error, OverflowError):
        return data
    if len(found) != count:
        return data
    kept = [entry.at for entry in found if entry.tag in tags]
    packed = b"".join(data[place : place + layout.entry_size] for place in kept)
    head = struct.pack(layout.total, len(kept))
    packed = head + packed + bytes(struct.calcsize(layout.number))  # no further directory
    start = at - len(head)
    return data[:start] + packed + data[start + len(packed) :]


def describe_samples(data: bytes) -> str | None:
    """Returns a text with the number, bits and type of a TIFF's samples; None if not given."""
    values = {entry.tag: entry.value for entry in entries(data)}
    bits, samples = values.get(_BITS), values.get(_SAMPLES, 1)
    if not bits or not samples:
        return None
    kind = _KINDS.get(values.get(_FORMAT) or 1, "unknown")
    return f"{samples} samples of {bits} bits each ({kind})"


class _Layout(NamedTuple):
    """``struct`` formats of one kind of TIFF: byte order, and classic or BigTIFF."""

    order: str
    start: int  # offset of the first directory's offset
    number: str  # format of an offset
    total: str  # format of the number of entries
    entry: str

    @property
    def room(self) -> int:
        """Returns how many bytes of values fit into an entry itself."""
        return struct.calcsize(self.number)

    @property
    def entry_size(self) -> int:
        return struct.calcsize(self.entry)


_LAYOUTS = {
    (order, big): _Layout(
        order,
        8 if big else 4,
        order + ("Q" if big else "I"),
        order + ("Q" if big else "H"),
        order + ("HHQQ" if big else "HHII"),
    )
    for order in "<>"
    for big in (False, True)
}


def _layout(data: bytes) -> _Layout:
    return _LAYOUTS["<" if data[:2] == b"II" else ">", 0x2B in data[2:4]]


def _directory(data: bytes, layout: _Layout) -> tuple[int, int]:
    """Returns the offset of the first entry, and the declared number of entries."""
    (at,) = struct.unpack_from(layout.number, data, layout.start)
    (count,) = struct.unpack_from(layout.total, data, at)
    return at + struct.calcsize(layout.total), count
