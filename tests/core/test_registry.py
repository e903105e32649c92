from dataclasses import dataclass

import pytest

from core.errors import UserError
from core.registry import Registry


@dataclass(frozen=True)
class Colour:
    name: str


def test_a_registry_keeps_the_order_and_names_the_closest() -> None:
    colours = Registry[Colour]("colour")
    for name in ("red", "green", "blue"):
        assert colours.register(Colour(name)) is colours[name]
    assert list(colours) == ["red", "green", "blue"]
    assert colours.find("green") == Colour("green")
    with pytest.raises(UserError, match=r"^unknown colour 'gren': did you mean green"):
        colours.find("gren")
    with pytest.raises(AssertionError, match="colour red is registered twice"):
        colours.register(Colour("red"))
    assert len(colours) == 3
