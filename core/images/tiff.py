"""The first directory of a TIFF file, and of an EXIF block, which is one."""

from __future__ import annotations

import struct
from collections.abc import Container
from typing import NamedTuple

MAX_ENTRIES = 65_535  # in a directory: as many as there are tags

ORIENTATION = 274
_BITS, _SAMPLES, _FORMAT = 258, 277, 339
_KINDS = {1: "unsigned", 2: "signed", 3: "float", 5: "complex", 6: "complex float"}
INTEGERS = {3: "H", 4: "I", 16: "Q"}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}


class Entry(NamedTuple):
    """An entry of a directory: where it lies and what it says."""

    at: int
    tag: int
    kind: int
    length: int  # number of values
    place: int  # of its values: in the entry itself if they fit, else where it points
    value: int | None  # the first, if it is an unsigned integer that the file holds


def is_tiff(data: bytes) -> bool:
    """Returns whether ``data`` begins as a TIFF does."""
    return data[:2] in (b"II", b"MM") and bool({0x2A, 0x2B} & set(data[2:4]))


def entries(data: bytes) -> list[Entry]:
    """Returns the entries of the first directory as far as they go, one too many at most."""
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
    except (struct.error, OverflowError):  # cut short, or points at nowhere
        pass
    return found


def orientation_of(data: bytes) -> int | None:
    """Returns how an image must be turned, 1 to 8, if the directory of ``data`` says so.

    Nothing else is looked at, and what cannot be read says nothing.
    """
    for entry in entries(data) if is_tiff(data) else ():
        if entry.tag == ORIENTATION:
            return entry.value if entry.length == 1 and entry.value in range(1, 9) else None
    return None


def with_tags_only(data: bytes, tags: Container[int]) -> bytes:
    """Returns a TIFF whose first directory holds only ``tags`` and is the last one.

    All values stay where they are; a directory that is cut short stays as it is.
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
    """Returns what a pixel of a TIFF is made of, in words; None if its directory does not say."""
    values = {entry.tag: entry.value for entry in entries(data)}
    bits, samples = values.get(_BITS), values.get(_SAMPLES, 1)
    if not bits or not samples:
        return None
    kind = _KINDS.get(values.get(_FORMAT) or 1, "unknown")
    return f"{samples} samples of {bits} bits each ({kind})"


class _Layout(NamedTuple):
    """Formats of struct for what differs between kinds of TIFF, and the place of the start."""

    order: str
    start: int
    number: str  # an offset
    total: str  # how many entries follow
    entry: str

    @property
    def room(self) -> int:
        """Returns how many bytes of values an entry itself has room for."""
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
    """Returns where the first entry lies, and how many there should be."""
    (at,) = struct.unpack_from(layout.number, data, layout.start)
    (count,) = struct.unpack_from(layout.total, data, at)
    return at + struct.calcsize(layout.total), count
