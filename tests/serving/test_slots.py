from __future__ import annotations

import pytest

from serving.batcher import Slots
from serving.errors import Refusal


def test_what_is_taken_is_given_back() -> None:
    slots = Slots(3)
    with slots.taken(), slots.taken(2):
        with pytest.raises(Refusal) as refused, slots.taken():
            pass
        assert refused.value.status == 429
        assert refused.value.headers == {"retry-after": "1"}
    with slots.taken(3):
        pass


def test_what_is_larger_than_all_takes_all() -> None:
    slots = Slots(2)
    with slots.taken(5), pytest.raises(Refusal), slots.taken():
        pass
    with slots.taken(), pytest.raises(Refusal), slots.taken(5):
        pass
    with slots.taken(5):
        pass
