from __future__ import annotations

from contextlib import ExitStack

import pytest

from serving.errors import Refusal
from serving.slots import Slots


def test_what_is_taken_is_given_back() -> None:
    slots = Slots(3).share()
    with slots.taken(), slots.taken(2):
        with pytest.raises(Refusal) as refused, slots.taken():
            pass
        assert refused.value.status == 429
        assert refused.value.headers == {"retry-after": "1"}
    with slots.taken(3):
        pass


def test_what_is_larger_than_all_takes_all() -> None:
    slots = Slots(2).share()
    with slots.taken(5), pytest.raises(Refusal), slots.taken():
        pass
    with slots.taken(), pytest.raises(Refusal), slots.taken(5):
        pass
    with slots.taken(5):
        pass


def test_a_flooded_model_leaves_some_to_the_others() -> None:
    slots = Slots(8)
    flooded, quiet = slots.share(), slots.share()
    with ExitStack() as stack:
        for _ in range(6):  # all but the two that are kept for the other
            stack.enter_context(flooded.taken())
        with pytest.raises(Refusal), flooded.taken():
            pass
        with quiet.taken(2), pytest.raises(Refusal), quiet.taken():
            pass
    assert flooded.used == quiet.used == 0
    with flooded.taken(8), quiet.taken(2):  # a batch is never too large for what it may have
        assert flooded.used == 6
    slots.drop(quiet)
    with flooded.taken(8):
        assert flooded.used == 8
