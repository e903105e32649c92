"""Iterates over the boxes of AVIF, HEIC and JPEG 2000 files (ISO/IEC 14496-12)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

MAX_BOXES = 100_000

# Boxes that contain boxes, and how many bytes of the body precede the first.
_HOLDERS = {b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0, b"iprp": 0, b"ipco": 0}
_HOLDERS |= {b"jp2h": 0, b"meta": 4, b"iref": 4}


class Box(NamedTuple):
    """A box: its offset, its type, the offset of its body, and the offset of its end."""

    at: int
    kind: bytes
    start: int
    end: int


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """Yields the consecutive boxes in ``data[start:end]``, up to the first invalid one.

    Raises:
        OSError: more than ``MAX_BOXES`` boxes.
    """
    at, end = start, len(data) if end is None else end
    for _ in range(MAX_BOXES):
        size, kind, body = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8], at + 8
        if size == 1:
            size, body = int.from_bytes(data[body : body + 8]), body + 8
        elif size == 0:
            size = end - at
        if at + size > end or body > at + size:
            return
        yield Box(at, kind, body, at + size)
        at += size
    raise OSError(f"more than {MAX_BOXES} boxes")


def all_boxes(data: bytes) -> Iterator[Box]:
    """Yields all boxes of a file depth first, including those inside ``meta`` and ``moov``.

    Raises:
        OSError: more than ``MAX_BOXES`` boxes.
    """
    waiting = [boxes(data)]
    for _ in range(MAX_BOXES):
        box = next(waiting[-1], None)
        if box is None:
            waiting.pop()
            if not waiting:
                return
            continue
        yield box
        if box.kind in _HOLDERS and len(waiting) < 10:
            waiting.append(boxes(data, box.start + _HOLDERS[box.kind], box.end))
    raise OSError(f"more than {MAX_BOXES} boxes")


class Numbers:
    """Reads big-endian numbers of given sizes from ``data``, one after the other.

    Raises:
        IndexError: ``data`` ends before the number does.
    """

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    def __call__(self, size: int) -> int:
        """Returns the next number, ``size`` bytes long."""
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise IndexError("cut short")
        return int.from_bytes(self._data[start : self._at])
