from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from artifact.records import Metrics
from bench.latency.pareto import RatedRow, beats, pareto_front, published_for, with_accuracy
from bench.latency.record import Row, Sweep
from bench.measure.timing import overlap
from models.cost import known_costs
from models.published import published_top1

Rows = Callable[..., Row]
Sweeps = Callable[..., Sweep]


@pytest.fixture(scope="module")
def make(make_row: Rows) -> Callable[..., RatedRow]:
    def one(ms: float, top1: float, spread: float = 0.0) -> RatedRow:
        return RatedRow(row=make_row(ms=ms, spread=spread), top1=top1)

    return one


def random_row(make_row: Rows, model: str, **changes: Any) -> Row:
    fields = {
        "model": model,
        "data": "random",
        "folder": f"{model}-random/onnx-fp32",
        "weights": "random",
        "metrics": None,
        "macs": known_costs()[model].macs,
    }
    return make_row(**{**fields, **changes})


def test_what_is_beaten_in_both_is_off_the_front(make: Callable[..., RatedRow]) -> None:
    small, large = make(1.0, 0.70), make(4.0, 0.80)
    slower, worse, both = make(5.0, 0.80), make(1.0, 0.60), make(2.0, 0.65)
    middle = make(2.0, 0.75)
    for order in itertools.permutations([small, large, slower, worse, both, middle]):
        assert pareto_front(order) == [small, middle, large]


def test_every_other_candidate_is_beaten_by_one_on_the_front(
    make: Callable[..., RatedRow],
) -> None:
    rng = np.random.default_rng(0)
    times, noise, spreads = 1 + 5 * rng.random(60), rng.random(60), rng.random(60) / 5
    many = [
        make(time, 0.6 + time / 20 + luck / 10, spread)
        for time, luck, spread in zip(times, noise, spreads, strict=True)
    ]
    front = pareto_front(many)
    for candidate in many:
        beaten = any(beats(member, candidate) for member in front)
        assert beaten != any(candidate is member for member in front)
    accuracies = [candidate.top1 for candidate in front]
    assert accuracies == sorted(accuracies)  # to wait longer is to be more accurate
    assert 1 < len(front) < len(many)


def test_of_a_tie_in_latency_the_more_accurate_one_wins(make: Callable[..., RatedRow]) -> None:
    faster, better = make(1.0, 0.70, spread=0.2), make(1.05, 0.72, spread=0.2)
    assert overlap(faster.latency, better.latency)
    assert beats(better, faster)
    assert not beats(faster, better)
    assert pareto_front([faster, better]) == [better]


def test_a_tie_in_both_leaves_both(make: Callable[..., RatedRow]) -> None:
    one, other = make(1.0, 0.70, spread=0.2), make(1.05, 0.70, spread=0.2)
    assert not beats(one, other)
    assert not beats(other, one)
    assert pareto_front([other, one]) == [one, other]


def test_a_chain_of_ties_loses_nobody(make: Callable[..., RatedRow]) -> None:
    # c ties with b and b with a, but a is clearly slower than c: b, which beats c, is beaten by a.
    a, b, c = make(1.3, 0.72, 0.12), make(1.15, 0.71, 0.12), make(1.0, 0.70, 0.12)
    assert overlap(a.latency, b.latency)
    assert overlap(b.latency, c.latency)
    assert not overlap(a.latency, c.latency)
    assert beats(a, b)
    assert beats(b, c)
    assert pareto_front([a, b, c]) == [c, a]


def test_an_accuracy_of_its_own_comes_first(make_row: Rows, make_sweep: Sweeps) -> None:
    own = Metrics(top1=0.6, torch_top1=0.6, images=50, runtime="ort-cpu")
    measured = random_row(make_row, "mobilenet_v2", weights="imagenet", metrics=own)
    published = random_row(make_row, "mobilenet_v2", runtime="openvino")
    nothing = make_row(metrics=None)  # trained, never measured: not the publisher's either
    absent = random_row(make_row, "mobilenet_v2", ms=None, reason="absent")
    found = with_accuracy(make_sweep(measured, published, nothing, absent))
    assert [(c.row.runtime, c.top1, c.published is None) for c in found] == [
        ("ort-cpu", 0.6, True),
        ("openvino", 0.72154, False),
    ]
    assert found[0].source == "this artifact, on 50 images"
    assert found[1].source == (
        "the publisher: torchvision MobileNet_V2_Weights.IMAGENET1K_V2, 224 px"
    )


def test_a_published_figure_is_of_float_weights(make_row: Rows, make_sweep: Sweeps) -> None:
    rows = [random_row(make_row, "resnet50", precision=p) for p in ("fp32", "fp16", "int8")]
    found = with_accuracy(make_sweep(*rows))
    assert [candidate.row.precision for candidate in found] == ["fp32", "fp16"]


def test_a_published_figure_is_of_its_size(make_row: Rows) -> None:
    b2 = random_row(make_row, "efficientnet_b2")
    assert published_for(b2) is None  # at 260; the figure is for 288
    b2 = dataclasses.replace(b2, weights="imagenet", data="imagenet")
    assert published_for(b2) is not None
    assert published_for(dataclasses.replace(b2, data="imagenet-1ch")) is None
    b0 = random_row(make_row, "efficientnet_b0")
    assert published_for(b0) == published_top1("efficientnet_b0")
    assert published_for(dataclasses.replace(b0, macs=b0.macs // 2)) is None  # type: ignore[operator]


@pytest.mark.parametrize(
    "changes", [{"weights": "trained"}, {"weights": None}, {"model": "se_resnet50"}]
)
def test_no_figure_where_none_is_published(make_row: Rows, changes: dict[str, Any]) -> None:
    row = random_row(make_row, "resnet50")
    assert published_for(row) is not None
    assert published_for(dataclasses.replace(row, **changes)) is None
