from __future__ import annotations

import dataclasses

import pytest
from made_layers import PEAKS, layer, times

from bench.layers.prediction import leave_family_out, score
from bench.layers.prediction_section import prediction_section
from bench.layers.record import LayerTime
from bench.layers.roofline import Roof, roof
from bench.measure.timing import Latency
from core.errors import UserError

FAMILIES = {f"{family}{number}": family for family in "abcd" for number in range(3)}


def network(model: str, scale: int) -> Roof:
    """A network whose element-wise layers take ten times what their bytes say, and no MACs."""
    layers: list[LayerTime] = []
    # Families differ in how much of them is element-wise: MACs alone cannot tell.
    heavy = "abcd".index(model[0]) + 1
    for index in range(12):
        macs = scale * 100_000 * (index + 1)
        layers.append(layer(f"conv{index}", macs=macs, seconds=2 * macs / 50e9))
        moved = heavy * 20_000 * (index + 1)
        layers.append(
            layer(
                f"add{index}",
                op="Add",
                kind="element-wise",
                macs=0,
                weights=0,
                read=moved,
                written=moved,
                seconds=20 * moved / 60e9,
            )
        )
    return roof(times(model, *layers), PEAKS)


@pytest.fixture(scope="module")
def roofs() -> list[Roof]:
    return [network(model, scale=int(model[1]) + 1) for model in FAMILIES]


def test_a_family_it_never_saw_is_predicted_by_its_layers(roofs: list[Roof]) -> None:
    found = leave_family_out(roofs, FAMILIES)
    assert [one.roof for one in found] == roofs
    layers = score(found, "seconds")
    rate = score(found, "rate")
    assert layers.count == 12
    assert layers.median < 0.1
    assert layers.within20 > 0.8
    assert rate.median > 0.2
    text = " ".join(prediction_section(found).sentences)
    assert "each predicted from networks of other families only" in text


def test_nothing_of_its_own_family_is_looked_at(roofs: list[Roof]) -> None:
    def slower(one: Roof) -> Roof:
        layers = [
            dataclasses.replace(layer, seconds=9 * layer.seconds) for layer in one.times.layers
        ]
        call = Latency(turns=((1.0,) * 5,) * 5, warmup=1)
        return roof(dataclasses.replace(one.times, layers=tuple(layers), call=call), PEAKS)

    changed = [slower(one) if FAMILIES[one.times.model] == "b" else one for one in roofs]
    before, after = leave_family_out(roofs, FAMILIES), leave_family_out(changed, FAMILIES)
    for old, new in zip(before, after, strict=True):
        same = (old.seconds, old.line, old.rate) == (new.seconds, new.line, new.rate)
        assert same == (FAMILIES[old.roof.times.model] == "b"), old.roof.times.model


def test_a_kind_that_no_other_family_has_is_still_predicted(roofs: list[Roof]) -> None:
    times_ = roofs[0].times
    strange = [dataclasses.replace(one, kind="grouped", op="Odd") for one in times_.layers]
    odd = roof(dataclasses.replace(times_, layers=tuple(strange)), PEAKS)
    first, *_ = leave_family_out([odd, *roofs[1:]], FAMILIES)
    assert first.seconds > 0


def test_two_families_are_too_few(roofs: list[Roof]) -> None:
    with pytest.raises(UserError, match=r"there are networks of 2 families \(a, b\)"):
        leave_family_out(roofs[:6], FAMILIES)
