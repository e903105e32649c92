"""The papers' figures of phones beside ours, and the orders of networks compared."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.latency.paper_phones import PAPER_PHONES, compare_orders, papers_section
from bench.latency.record import Row, Sweep
from models.cost import known_costs
from models.registry import list_models

Rows = Callable[..., Row]
Sweeps = Callable[..., Sweep]
(SNAPDRAGON,) = (paper for paper in PAPER_PHONES if paper.phone == "Snapdragon 810")


@pytest.fixture
def row(make_row: Rows) -> Rows:
    """Makes the row of a network at its native size."""

    def make(model: str, ms: float, **changes: object) -> Row:
        fields: dict[str, object] = {
            "model": model,
            "folder": f"{model}-imagenet/onnx-fp32",
            "macs": known_costs()[model].macs,
            "spread": 0.01,
        }
        return make_row(ms=ms, **{**fields, **changes})

    return make


def test_papers_name_networks_of_the_registry_once() -> None:
    assert {model for paper in PAPER_PHONES for model in paper.ms} <= set(list_models())
    columns = [(paper.phone, paper.source, paper.precision) for paper in PAPER_PHONES]
    assert len(set(columns)) == len(columns)


def test_images_per_second_are_milliseconds() -> None:
    assert SNAPDRAGON.ms["shufflenet_v2_x1_0"] == pytest.approx(40.98, abs=0.01)
    assert min(SNAPDRAGON.ms.values()) == pytest.approx(1000 / 57.0)


def test_the_papers_own_order_agrees(make_sweep: Sweeps, row: Rows) -> None:
    sweep = make_sweep(*(row(model, ms / 10) for model, ms in SNAPDRAGON.ms.items()))
    (found,) = [each for each in compare_orders(sweep) if each.paper is SNAPDRAGON]
    assert len(found.rows) == len(SNAPDRAGON.ms)
    assert found.spearman == pytest.approx(1)
    assert found.kendall == pytest.approx(1)
    assert found.inverted == ()


def test_another_order_is_named(make_sweep: Sweeps, row: Rows) -> None:
    # The paper has 17.5, 27.5, 41.0 and 60.6 ms.
    here = {
        "shufflenet_v2_x0_5": 1.0,
        "mobilenet_v1_x0_25": 4.0,
        "shufflenet_v2_x1_0": 2.0,
        "mobilenet_v1_x0_5": 5.0,
    }
    sweep = make_sweep(*(row(model, ms) for model, ms in here.items()))
    (found,) = compare_orders(sweep)
    assert found.spearman == pytest.approx(0.8)
    assert found.kendall == pytest.approx(2 / 3)
    assert [(slow.model, fast.model) for slow, fast in found.inverted] == [
        ("shufflenet_v2_x1_0", "mobilenet_v1_x0_25")
    ]
    section = papers_section(sweep, ", big cores")
    assert section is not None
    assert section.title.endswith(", big cores")
    assert section.tables[0].rows[0][-1] == "1 of 6: shufflenet_v2_x1_0 before mobilenet_v1_x0_25"


def test_only_the_same_network_at_the_same_size_is_compared(make_sweep: Sweeps, row: Rows) -> None:
    models = list(SNAPDRAGON.ms)[:4]
    macs = {model: known_costs()[model].macs for model in models}
    close = [row(m, 1.0 + n, macs=macs[m] * 0.98) for n, m in enumerate(models)]
    assert compare_orders(make_sweep(*close))
    for changes in (
        {"macs": 1_000_000},
        {"batch": 8},
        {"threads": 2},
        {"precision": "int8"},
        {"latency": None, "reason": "no GPU"},
    ):
        rows = [row(model, 1.0 + n, **changes) for n, model in enumerate(models)]
        assert papers_section(make_sweep(*rows)) is None


def test_few_networks_are_shown_and_not_compared(make_sweep: Sweeps, row: Rows) -> None:
    section = papers_section(make_sweep(row("mobilenet_v2", 9.0), row("resnet50", 50.0)))
    assert section is not None
    (table,) = section.tables
    assert section.sentences == ()
    (cells,) = table.rows
    assert cells[:2] == ("mobilenet_v2", "9.00")
    assert {"75.0", "73.8", "64.0", "76.0", "56.0", "112.4"} == set(cells[2:])
