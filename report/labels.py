"""Places the labels of points in a chart with log axes, avoiding overlap."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log
from typing import Any, Literal, NamedTuple

# Size of the sheet's charts in pixels; on a page they are wider.
WIDTH, HEIGHT = 470, 400
_LETTER, _LINE, _MARK = 5.8, 11.0, 6.0


@dataclass(frozen=True, slots=True)
class Side:
    """A position of a label relative to its point: Vega-Lite's dx and dy in pixels, and align."""

    name: str
    dx: int
    dy: int
    align: Literal["left", "center", "right"]
    baseline: Literal["top", "middle", "bottom"]


# In order of preference: other points of the same network are above, never below.
SIDES = (
    Side("below", 0, 9, "center", "top"),
    Side("right", 10, 0, "left", "middle"),
    Side("left", -10, 0, "right", "middle"),
    Side("below right", 7, 7, "left", "top"),
    Side("below left", -7, 7, "right", "top"),
    Side("above right", 7, -7, "left", "bottom"),
    Side("above left", -7, -7, "right", "bottom"),
    Side("above", 0, -9, "center", "bottom"),
)


class _Box(NamedTuple):
    left: float
    top: float
    right: float
    bottom: float

    def shared(self, other: _Box) -> float:
        """Returns the area of the intersection in square pixels."""
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(0.0, across) * max(0.0, down)


def place_labels(
    points: Iterable[dict[str, Any]], x_range: Sequence[float], y_range: Sequence[float]
) -> list[dict[str, Any]]:
    """Returns ``points`` with a field ``side``: the name of one of :data:`SIDES`.

    Each label in turn moves to the side with the least overlap with other labels, points and the
    outside of the chart, until none moves.

    Args:
        points: records with ``macs``, ``p50`` and ``name``.
        x_range: limits of the axis of ``macs``.
        y_range: limits of the axis of ``p50``.
    """
    records = sorted(points, key=lambda point: float(point["p50"]))
    places = [
        (_share(r["macs"], x_range) * WIDTH, (1 - _share(r["p50"], y_range)) * HEIGHT)
        for r in records
    ]
    marks = [_Box(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in places]
    boxes = [
        [_box(x, y, len(r["name"]), side) for side in SIDES]
        for r, (x, y) in zip(records, places, strict=True)
    ]
    chosen = [0] * len(records)
    for _ in range(len(SIDES)):
        before = list(chosen)
        for index, sides in enumerate(boxes):
            others = [boxes[i][side] for i, side in enumerate(chosen) if i != index]
            chosen[index] = min(
                range(len(SIDES)), key=lambda side: _covered(sides[side], [*others, *marks])
            )
        if chosen == before:
            break
    return [{**r, "side": SIDES[side].name} for r, side in zip(records, chosen, strict=True)]


def _covered(box: _Box, others: Iterable[_Box]) -> float:
    inside = _Box(0, 0, WIDTH, HEIGHT)
    whole = (box.right - box.left) * (box.bottom - box.top)
    return sum(box.shared(other) for other in others) + 4 * (whole - box.shared(inside))


def _box(x: float, y: float, letters: int, side: Side) -> _Box:
    width = _LETTER * letters
    left = x + side.dx - {"left": 0.0, "center": width / 2, "right": width}[side.align]
    top = y + side.dy - {"top": 0.0, "middle": _LINE / 2, "bottom": _LINE}[side.baseline]
    return _Box(left, top, left + width, top + _LINE)


def _share(value: float, ends: Sequence[float]) -> float:
    return log(value / ends[0]) / log(ends[1] / ends[0])
