from __future__ import annotations

from collections import Counter
from itertools import combinations
from math import log
from typing import Any

from report.labels import HEIGHT, SIDES, WIDTH, place_labels

X, Y = [10.0, 10_000.0], [1.0, 1000.0]
LETTER, LINE = 5.8, 11.0  # pixels

Box = tuple[float, float, float, float]


def label(name: str, macs: float, p50: float) -> dict[str, Any]:
    return {"name": name, "macs": macs, "p50": p50}


def box(placed: dict[str, Any]) -> Box:
    """Returns left, top, right and bottom of a name in pixels, as Vega-Lite draws it."""
    side = next(side for side in SIDES if side.name == placed["side"])
    x = log(placed["macs"] / X[0]) / log(X[1] / X[0]) * WIDTH
    y = (1 - log(placed["p50"] / Y[0]) / log(Y[1] / Y[0])) * HEIGHT
    width = LETTER * len(placed["name"])
    left = x + side.dx - {"left": 0.0, "center": width / 2, "right": width}[side.align]
    top = y + side.dy - {"top": 0.0, "middle": LINE / 2, "bottom": LINE}[side.baseline]
    return left, top, left + width, top + LINE


def overlap(one: Box, other: Box) -> bool:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return across > 0 and down > 0


def test_names_that_are_apart_stand_below_their_points() -> None:
    points = [label("one", 20, 5), label("two", 5000, 5), label("three", 20, 500)]
    placed = place_labels(points, X, Y)
    assert [point["side"] for point in placed] == ["below"] * 3
    assert {point["name"]: (point["macs"], point["p50"]) for point in placed} == {
        "one": (20, 5),
        "two": (5000, 5),
        "three": (20, 500),
    }


def test_names_of_points_close_together_do_not_overlap() -> None:
    points = [label(f"network_{n}", 300 + 20 * n, 50 - 4 * n) for n in range(4)]
    placed = place_labels(points, X, Y)
    assert not [pair for pair in combinations(map(box, placed), 2) if overlap(*pair)]
    assert max(Counter(point["side"] for point in placed).values()) < 4


def test_names_stay_within_the_chart() -> None:
    corners = [label("a_long_name", macs, p50) for macs in (11, 9000) for p50 in (1.1, 900)]
    for left, top, right, bottom in map(box, place_labels(corners, X, Y)):
        assert left >= 0
        assert top >= 0
        assert right <= WIDTH
        assert bottom <= HEIGHT
