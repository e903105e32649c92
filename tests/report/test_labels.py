from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from report.labels import place_labels

X, Y = [10.0, 10_000.0], [1.0, 1000.0]


def label(name: str, macs: float, p50: float) -> dict[str, Any]:
    return {"name": name, "macs": macs, "p50": p50}


def test_names_that_are_apart_stay() -> None:
    points = [label("one", 20, 5), label("two", 5000, 5), label("three", 20, 500)]
    placed = {point["name"]: point["p50"] for point in place_labels(points, X, Y)}
    assert placed == pytest.approx({"one": 5, "two": 5, "three": 500})


def test_names_in_one_place_stand_below_each_other() -> None:
    points = [label(f"network_{n}", 300 + n, 50 - n) for n in range(4)]
    placed = [point["p50"] for point in place_labels(points, X, Y)]
    assert placed[0] == pytest.approx(50)
    # 300 pixels are three powers of ten: a line of 11 is a factor of 1.3.
    assert all(above / below > 1.28 for above, below in pairwise(placed))
    assert all(point["macs"] == 300 + n for n, point in enumerate(place_labels(points, X, Y)))


def test_none_leaves_the_chart() -> None:
    points = [label(f"network_{n}", 300, 1.5) for n in range(9)]
    assert min(point["p50"] for point in place_labels(points, X, Y)) > 1.0
