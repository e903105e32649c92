"""Names beneath points of a chart with log axes, none over another. No torch here."""

from __future__ import annotations

from collections.abc import Iterable
from math import log
from typing import Any

# Pixels, of the sheet's charts; a page gives them more room across.
WIDTH, HEIGHT = 430, 300
_LETTER, _LINE = 5.6, 11.5
_STEP = 2.0


def place_labels(
    points: Iterable[dict[str, Any]], x_range: list[float], y_range: list[float]
) -> list[dict[str, Any]]:
    """Returns ``points`` with ``p50`` moved down as far as their names need to stand free.

    From the top: a name stays right beneath its point unless one above it is in the way, and none
    leaves the chart.

    Args:
        points: records with ``macs``, ``p50`` and ``name``.
        x_range: ends of the axis of ``macs``.
        y_range: ends of the axis of ``p50``.
    """
    placed: list[tuple[float, float, float]] = []  # middle, half of the width, top
    low, high = y_range
    found = []
    for point in sorted(points, key=lambda point: -float(point["p50"])):
        middle = _share(point["macs"], x_range) * WIDTH
        top = (1 - _share(point["p50"], y_range)) * HEIGHT
        half = _LETTER * len(point["name"]) / 2
        while top < HEIGHT - 2 * _LINE and any(
            abs(middle - other) < half + width and abs(top - taken) < _LINE
            for other, width, taken in placed
        ):
            top += _STEP
        placed.append((middle, half, top))
        found.append({**point, "p50": low * (high / low) ** (1 - top / HEIGHT)})
    return found


def _share(value: float, ends: list[float]) -> float:
    return log(value / ends[0]) / log(ends[1] / ends[0])
