from __future__ import annotations

import math

import pytest

from bench.measure.spread import Spread


def test_ratios_are_taken_round_by_round() -> None:
    # The machine was half as fast in the second round: the ratios do not know.
    ratio = Spread.ratio([90.0, 45.0, 99.0], [100.0, 50.0, 100.0])
    assert (ratio.median, ratio.low, ratio.high) == pytest.approx((0.9, 0.9, 0.99))
    assert str(ratio) == "0.90 (0.90 to 0.99)"


@pytest.mark.parametrize(
    ("target", "verdict"), [(0.9, "met"), (0.91, "undecided"), (0.99, "undecided"), (1.0, "missed")]
)
def test_a_target_between_the_rounds_is_undecided(target: float, verdict: str) -> None:
    assert Spread.of([0.95, 0.9, 0.99]).at_least(target) == verdict


def test_nothing_under_a_ratio_is_infinite() -> None:
    assert Spread.ratio([1.0], [0.0]).median == math.inf


@pytest.mark.parametrize(("target", "verdict"), [(0.89, "missed"), (0.9, "undecided"), (1, "met")])
def test_at_most_is_the_other_way_round(target: float, verdict: str) -> None:
    assert Spread.of([0.95, 0.9, 0.99]).at_most(target) == verdict
