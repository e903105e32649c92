from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
import vl_convert

from artifact.records import Metrics
from bench.latency.pareto import pareto_section
from bench.latency.record import Row, Sweep
from models.cost import known_costs
from report.markdown import markdown
from report.section import Section

Rows = Callable[..., Row]
Sweeps = Callable[..., Sweep]


def digits(make_row: Rows, model: str, ms: float, top1: float, **changes: Any) -> Row:
    metrics = Metrics(top1=top1, torch_top1=top1, images=359, runtime="ort-cpu")
    folder = f"{model}-digits/onnx-{changes.get('precision', 'fp32')}"
    return make_row(ms=ms, model=model, data="digits", folder=folder, metrics=metrics, **changes)


def random(make_row: Rows, model: str, ms: float, **changes: Any) -> Row:
    cost = known_costs()[model]
    fields = {"data": "random", "folder": f"{model}-random/onnx-fp32", "weights": "random"}
    return make_row(ms=ms, model=model, metrics=None, macs=cost.macs, **{**fields, **changes})


@pytest.fixture(scope="module")
def section(make_row: Rows, make_sweep: Sweeps) -> Section:
    found = pareto_section(
        make_sweep(
            random(make_row, "resnet50", 40.0),
            random(make_row, "mobilenet_v2", 4.0),
            random(make_row, "mobilenet_v2", 4.1, runtime="openvino", spread=0.2),
            random(make_row, "shufflenet_v1_g3", 5.0),  # slower than mobilenet_v2 and worse
            random(make_row, "resnet50", 20.0, precision="int8"),
            digits(make_row, "small", 1.0, 0.97),
            digits(make_row, "large", 3.0, 0.99),
            digits(make_row, "large", 2.0, 0.98, precision="int8"),
            digits(make_row, "poor", 5.0, 0.90),
            digits(make_row, "small", 6.0, 0.97, batch=8),
            digits(make_row, "large", 9.0, 0.99, batch=8),
        )
    )
    assert found is not None
    return found


def test_there_is_a_front_for_each_data_and_batch(section: Section) -> None:
    assert [figure.title for figure in section.figures] == [
        "Top-1 against latency: digits, batch 1",
        "Top-1 against latency: digits, batch 8",
        "Top-1 against latency: ImageNet (published), batch 1",
    ]
    assert re.match(
        r"digits, batch 1: .*\b4 .*\b3 .*small \(onnx-fp32 in ort-cpu, 1\.00 ms, 97\.0 % measured\)"
        r".*large \(onnx-fp32 in ort-cpu, 3\.00 ms, 99\.0 % measured\)",
        section.sentences[0],
    )
    assert "80.9 % published" in section.sentences[2]


def test_the_table_holds_the_fronts_and_says_whose_figures_they_are(section: Section) -> None:
    (table,) = section.tables
    rows = [dict(zip(table.header, row, strict=True)) for row in table.rows]
    assert [(row["Data"], row["Batch"], row["Network"]) for row in rows] == [
        ("digits", "1", "small"),
        ("digits", "1", "large"),
        ("digits", "1", "large"),
        ("digits", "8", "small"),
        ("digits", "8", "large"),
        ("ImageNet (published)", "1", "mobilenet_v2"),
        ("ImageNet (published)", "1", "mobilenet_v2"),
        ("ImageNet (published)", "1", "resnet50"),
    ]
    assert {row["Top-1 of"] for row in rows[:5]} == {"this artifact, on 359 images"}
    assert all(row["Top-1 of"].startswith("the publisher: torchvision ") for row in rows[5:])
    assert rows[5]["Tie with"] == "mobilenet_v2 fp32 in openvino"
    assert rows[7]["Tie with"] == ""
    assert table.numeric <= set(table.header)


def test_the_notes_say_what_published_means_and_what_is_left_out(section: Section) -> None:
    text = " ".join(section.notes)
    assert re.search(r"\bint8 .*\(1 here\)", text)
    assert "hollow" in section.figures[2].caption
    assert re.search(r"\b359 images .*0\.28 points", section.figures[0].caption)


def test_the_charts_draw_the_front_and_mark_what_is_published(section: Section) -> None:
    for figure, published in zip(section.figures, (False, False, True), strict=True):
        spec = figure.chart.to_dict()
        assert spec["$schema"].startswith("https://vega.github.io/schema/vega-lite/")
        line, _, marks, *names = spec["layer"]
        assert line["mark"]["type"] == "line"
        assert marks["mark"]["filled"] is not published
        assert ("published" in marks["encoding"]["y"]["title"]) is published
        assert {name["encoding"]["text"]["field"] for name in names} == {"name"}
        assert "width" not in spec  # the page gives it one
        svg = vl_convert.vegalite_to_svg(figure.chart.properties(width=400).to_dict())
        assert "large" in svg or "resnet50" in svg
    data = json.dumps(section.figures[0].chart.to_dict())
    assert '"name": "small"' in data
    assert '"name": "poor"' not in data  # only those on the front are named


def test_it_is_markdown(section: Section) -> None:
    lines = markdown(section)
    assert lines[0] == "## Accuracy against latency"
    assert sum(line.startswith("| ") for line in lines) == 2 + 8


def test_one_that_beats_all_is_said_to(make_row: Rows, make_sweep: Sweeps) -> None:
    found = pareto_section(
        make_sweep(digits(make_row, "good", 1.0, 0.99), digits(make_row, "bad", 2.0, 0.9))
    )
    assert found is not None
    (sentence,) = found.sentences
    assert "good (onnx-fp32 in ort-cpu, 1.00 ms, 99.0 % measured)" in sentence
    assert "bad" not in sentence
    assert len(found.notes) == 1  # nothing is published here


def test_no_section_where_accuracy_does_not_differ(make_row: Rows, make_sweep: Sweeps) -> None:
    assert pareto_section(make_sweep(make_row(), make_row(ms=2.0, runtime="torch"))) is None
    assert pareto_section(make_sweep(make_row(ms=None, reason="absent"))) is None
    # Two kinds of figures are not two candidates.
    mixed = make_sweep(make_row(), random(make_row, "resnet50", 40.0))
    assert pareto_section(mixed) is None
