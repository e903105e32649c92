"""Estimates the cost of decoding an AVIF or HEIC file (ISO/IEC 23008-12)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from core.images.av1 import coded_pixels
from core.images.boxes import Box, Numbers, all_boxes, boxes

MAX_ITEMS = 4096  # libavif searches them linearly, repeatedly
MAX_VALUES = 100_000  # entries of a list: references, properties, samples of a track
_MAX_DEPTH = 4  # a grid of tiles has depth 2
_MAX_PARTS = 8  # tracks and item boxes: colour and alpha have one each

# Tables of a track: positions and times of its pictures.
_TABLES = (b"stsz", b"stts", b"stsc", b"stco", b"co64", b"stss", b"ctts")


def decoding_cost(data: bytes) -> tuple[int, int]:
    """Returns the pixels of the largest picture, and the sum over all pictures to be decoded.

    Coded sizes count, which may differ from the declared ones. Of a track, only the first picture
    counts.

    Raises:
        OSError: broken boxes, or more items, tracks or values than the limits above.
    """
    try:
        return _decoding_cost(data)
    except (IndexError, ValueError):
        raise OSError("its boxes are broken") from None


def _decoding_cost(data: bytes) -> tuple[int, int]:
    largest = total = parts = 0
    tracks: dict[bytes, list[int]] = {b"stsd": [], b"stco": [], b"stsz": []}
    for box in all_boxes(data):
        parts += box.kind in (b"meta", b"stsd")
        if parts > _MAX_PARTS:
            raise OSError(f"more than {_MAX_PARTS} tracks and boxes of items")
        if box.kind == b"meta":
            pictures = _Pictures(data, box)
            largest = max(largest, pictures.largest)
            total += pictures.total
        elif box.kind == b"stsd":
            tracks[box.kind].append(data[box.start + 12 : box.start + 16] == b"av01")
        elif box.kind in _TABLES:
            take = Numbers(data, box.start + 4)
            alike = take(4) if box.kind == b"stsz" else 0
            count = take(4)
            if count > MAX_VALUES:
                raise OSError(f"{count} values in {box.kind.decode()}, the limit is {MAX_VALUES}")
            if box.kind in (b"stco", b"co64"):
                tracks[b"stco"].append(take(8 if box.kind == b"co64" else 4) if count else 0)
            elif box.kind == b"stsz":
                tracks[b"stsz"].append(alike or (take(4) if count else 0))
    for is_av1, place, size in zip(*tracks.values(), strict=True):
        if is_av1:
            frame, frames = coded_pixels(data[place : place + size])
            largest, total = max(largest, frame), total + frames
    return largest, total


@dataclass
class _Item:
    kind: bytes = b""
    pixels: int = 0  # by its declared size
    parts: list[int] = field(default_factory=list)  # items that it is composed of
    extents: list[tuple[int, int]] = field(default_factory=list)  # offset and length of its bytes
    prefix: int = 4  # bytes of the length before each HEVC unit


class _Pictures:
    """The items of a ``meta`` box: pixels of the largest picture, and of all pictures."""

    def __init__(self, data: bytes, meta: Box) -> None:
        self._data = data
        self._items: dict[int, _Item] = defaultdict(_Item)
        self._idat = 0
        self._values = 0
        inner = list(boxes(data, meta.start + 4, meta.end))
        for box in inner:
            if box.kind == b"idat":
                self._idat = box.start
        readers = {
            b"iinf": self._read_kinds,
            b"iloc": self._read_places,
            b"iref": self._read_parts,
            b"iprp": self._read_properties,
        }
        for box in inner:
            if box.kind in readers:
                readers[box.kind](box)
        if sum(size for item in self._items.values() for _, size in item.extents) > 4 * len(data):
            raise OSError("its items lie over each other")
        costs = {number: self._cost(item) for number, item in self._items.items()}
        self.largest = max((largest for largest, _ in costs.values()), default=0)
        self.total = self._add_parts({number: total for number, (_, total) in costs.items()})

    def _add_parts(self, own: Mapping[int, int]) -> int:
        """Returns the total cost of all top-level items, each including its parts."""
        cost = own
        for _ in range(_MAX_DEPTH):
            deeper = {
                number: own[number] + sum(cost.get(part, 0) for part in item.parts)
                for number, item in self._items.items()
            }
            if deeper == cost:
                break
            cost = deeper
        else:
            raise OSError("its items are parts of each other")
        parts = {part for item in self._items.values() for part in item.parts}
        return sum(pixels for number, pixels in cost.items() if number not in parts)

    def _cost(self, item: _Item) -> tuple[int, int]:
        """Returns the pixels of an item's largest picture, and the sum over its pictures."""
        if item.kind == b"av01":
            largest, total = coded_pixels(self._bytes(item))
            return max(largest, item.pixels), max(total, item.pixels)
        if item.kind == b"hvc1":
            return item.pixels, item.pixels * _hevc_pictures(self._bytes(item), item.prefix)
        return item.pixels, item.pixels

    def _bytes(self, item: _Item) -> bytes:
        return b"".join(self._data[place : place + size] for place, size in item.extents)

    def _item(self, number: int) -> _Item:
        item = self._items[number]
        if len(self._items) > MAX_ITEMS:
            raise OSError(f"more than {MAX_ITEMS} items")
        return item

    def _count(self, values: int) -> int:
        self._values += values
        if self._values > MAX_VALUES:
            raise OSError(f"its boxes hold more than {MAX_VALUES} values")
        return values

    def _read_kinds(self, box: Box) -> None:
        start = box.start + (8 if self._data[box.start] else 6)
        for entry in boxes(self._data, start, box.end):
            take = Numbers(self._data, entry.start)
            version = take(4) >> 24
            if entry.kind == b"infe" and version >= 2:
                item = self._item(take(2 if version == 2 else 4))
                take(2)
                item.kind = take(4).to_bytes(4)

    def _read_places(self, box: Box) -> None:
        take = Numbers(self._data, box.start)
        version = take(4) >> 24
        sizes = take(2)
        offset, length, base, index = (sizes >> shift & 15 for shift in (12, 8, 4, 0))
        wide = 2 if version < 2 else 4
        for _ in range(self._count(take(wide))):
            item = self._item(take(wide))
            inside = version in (1, 2) and take(2) & 15 == 1
            take(2)
            start = take(base) + (self._idat if inside else 0)
            for _ in range(self._count(take(2))):
                take(index if version in (1, 2) else 0)
                place = start + take(offset)
                size = take(length) or max(0, len(self._data) - place)
                item.extents.append((place, size))

    def _read_parts(self, box: Box) -> None:
        wide = 4 if self._data[box.start] else 2
        for entry in boxes(self._data, box.start + 4, box.end):
            take = Numbers(self._data, entry.start)
            item = self._item(take(wide))
            parts = [take(wide) for _ in range(self._count(take(2)))]
            for part in parts:
                self._item(part)
            if entry.kind == b"dimg":
                item.parts += parts

    def _read_properties(self, box: Box) -> None:
        properties: list[Box] = []
        inner = list(boxes(self._data, box.start, box.end))
        for entry in inner:
            if entry.kind == b"ipco":
                properties += boxes(self._data, entry.start, entry.end)
        for entry in inner:
            if entry.kind == b"ipma":
                self._read_associations(entry, properties)

    def _read_associations(self, box: Box, properties: Sequence[Box]) -> None:
        take = Numbers(self._data, box.start)
        head = take(4)
        wide, size = (4 if head >> 24 else 2), (2 if head & 1 else 1)
        for _ in range(self._count(take(4))):
            item = self._item(take(wide))
            for _ in range(self._count(take(1))):
                number = take(size) & ((1 << 8 * size - 1) - 1)
                if not 1 <= number <= len(properties):
                    continue
                found = properties[number - 1]
                if found.kind == b"ispe":
                    take_size = Numbers(self._data, found.start + 4)
                    item.pixels = max(item.pixels, take_size(4) * take_size(4))
                elif found.kind == b"hvcC":
                    item.prefix = (self._data[found.start + 21] & 3) + 1


def _hevc_pictures(data: bytes, prefix: int) -> int:
    """Counts the pictures in an HEVC stream: slices that are the first of their picture."""
    pictures = at = 0
    for _ in range(MAX_VALUES):
        unit = data[at + prefix : at + prefix + 3]
        if len(unit) < 3:
            return pictures
        pictures += unit[0] >> 1 & 63 < 32 and unit[2] >> 7
        at += prefix + int.from_bytes(data[at : at + prefix])
    raise OSError(f"more than {MAX_VALUES} units")
