"""Seconds that are shared out, on a clock of their own."""

from __future__ import annotations

import pytest

from bench.gpu.process import Budget, seconds_of
from core.errors import UserError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("text", "seconds"), [("8m30s", 510), ("9m", 540), ("510s", 510), ("45", 45), ("1m5", 65)]
)
def test_a_time_in_words(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0m0s", "-5", "soon", "1h", "8.5m"])
def test_no_time(text: str) -> None:
    with pytest.raises(UserError, match="it must be a time above 0, such as 8m30s"):
        seconds_of(text)


def test_what_a_step_leaves_goes_to_the_others() -> None:
    clock = Clock()
    budget = Budget(120, clock=clock)
    assert budget.share([1, 2, 3]) == 20
    clock.now += 5
    assert (budget.used, budget.left) == (5, 115)
    assert budget.share([2, 3]) == 46
    clock.now += 115
    assert budget.share([3]) == 0
    clock.now += 10
    assert budget.left == 0


def test_a_piece_begins_only_if_the_longest_of_its_kind_would_fit() -> None:
    clock = Clock()
    budget = Budget(100, clock=clock)
    for took in (40, 10):
        assert budget.refusal("long") is None
        with budget.piece("long"):
            clock.now += took
    assert budget.refusal("long") is None  # 50 s are left, 40 were needed
    clock.now += 15
    assert budget.refusal("long") == "no time left (65 s of 100)"
    assert budget.refusal("short") is None
    clock.now += 35
    assert budget.refusal("short") == "no time left (100 s of 100)"


def test_of_the_first_piece_is_known_what_is_expected() -> None:
    clock = Clock()
    budget = Budget(50, clock=clock)
    assert budget.refusal("a", 50) == "no time left (0 s of 50)"
    assert budget.refusal("a", 49) is None
    with budget.piece("a"):
        clock.now += 3
    assert budget.refusal("a", 49) is None  # by now it is known better


def test_a_piece_that_fails_counts() -> None:
    clock = Clock()
    budget = Budget(10, clock=clock)

    def fails() -> None:
        clock.now += 6
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), budget.piece("a"):
        fails()
    assert budget.refusal("a") == "no time left (6 s of 10)"
