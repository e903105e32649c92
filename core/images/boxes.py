"""The boxes that AVIF, HEIC and JPEG 2000 are made of (ISO/IEC 14496-12)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

MAX_BOXES = 100_000

# What holds boxes, and how many bytes come before the first.
_HOLDERS = {b"moov": 0, b"trak": 0, b"mdia": 0, b"minf": 0, b"stbl": 0, b"iprp": 0, b"ipco": 0}
_HOLDERS |= {b"jp2h": 0, b"meta": 4, b"iref": 4}


class Box(NamedTuple):
    """A box: where it begins, its kind, where its body begins and where both end."""

    at: int
    kind: bytes
    start: int
    end: int


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[Box]:
    """Yields the boxes that lie one after the other, as far as they go.

    Raises:
        OSError: more boxes than an honest file has.
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
    """Yields every box of a file down to those in ``meta`` and ``moov``, each after its holder.

    Raises:
        OSError: more boxes than an honest file has.
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
    """Takes big-endian numbers of so many bytes, one after the other.

    Raises:
        IndexError: ``data`` has no more.
    """

    def __init__(self, data: bytes, at: int) -> None:
        self._data = data
        self._at = at

    def __call__(self, size: int) -> int:
        """Returns the next number, of ``size`` bytes."""
        start, self._at = self._at, self._at + size
        if self._at > len(self._data):
            raise IndexError("cut short")
        return int.from_bytes(self._data[start : self._at])
