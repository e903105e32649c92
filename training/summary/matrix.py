"""The picture of a confusion matrix."""

from __future__ import annotations

import json
from collections.abc import Sequence

import altair as alt

from report.format import one_line
from report.theme import QUIET, Records, png, sheet
from training.summary.confusion import Matrix

# Evenly spaced on the square root scale, from nearly white to navy.
_BLUES = {0: "#f3f5f9", 0.0625: "#c6dbef", 0.25: "#6baed6", 0.5625: "#2171b5", 1: "#08306b"}
_DARK = 0.51  # fraction from which white text has more contrast than black; both have 4.5:1
_COUNTS = 15  # most classes for which counts are legible in the cells


def confusion_png(
    confusion: Matrix, labels: Sequence[str], shown: Sequence[int], title: str, subtitle: list[str]
) -> bytes:
    """Returns the picture of :func:`confusion_chart`, with square cells."""
    chart, data = confusion_chart(confusion, labels, shown)
    drawn = sheet(chart, title, subtitle, data=data, width=chart.height, legend="right")
    return png(drawn)


def confusion_chart(
    confusion: Matrix, labels: Sequence[str], shown: Sequence[int]
) -> tuple[alt.LayerChart | alt.FacetChart, dict[str, Records]]:
    """Returns the chart of the rows and columns ``shown`` of a confusion matrix, and its data.

    Colour is the fraction of the true class's images, including classes not shown. The scale is a
    square root, so that a confusion of 1 % is visible next to 99 % on the diagonal.
    """
    size = len(shown)
    cell = min(76, max(21, 500 // size))
    names = [_short(one_line(labels[index])) for index in shown]
    cells = [
        {
            "true": row,
            "predicted": column,
            "count": int(confusion[a, b]),
            "share": int(confusion[a, b]) / max(1, int(confusion[a].sum())),
        }
        for row, a in enumerate(shown)
        for column, b in enumerate(shown)
    ]
    # Positions are used instead of names, which may repeat: ImageNet has two classes "crane".
    axis = alt.Axis(
        labelExpr=f"{json.dumps(names)}[datum.value]",
        labelLimit=0,
        labelFontSize=12 if size <= _COUNTS else 10,
        labelPadding=6,
        ticks=False,
        domain=False,
        grid=False,
        titlePadding=12,
    )
    upright = max(map(len, names)) * 7 < cell  # the longest name fits below its column
    columns = axis.copy()
    columns.labelAngle = 0 if upright else -45
    scale = alt.Scale(padding=0.04)
    base = alt.Chart(alt.NamedData(name="cells")).encode(
        x=alt.X("predicted:O", title="predicted class", axis=columns, scale=scale),
        y=alt.Y("true:O", title="true class", axis=axis, scale=scale),
    )
    empty = base.transform_filter("datum.count === 0").mark_rect(
        cornerRadius=2, color=QUIET, opacity=0.07
    )
    rects = base.transform_filter("datum.count > 0").mark_rect(cornerRadius=2)
    rects = rects.encode(
        color=alt.Color(
            "share:Q",
            title="share of the true class",
            scale=alt.Scale(type="sqrt", domain=list(_BLUES), range=list(_BLUES.values())),
            legend=alt.Legend(
                labelExpr="datum.value * 100 + ' %'",
                values=[0, 0.05, 0.25, 0.5, 1],
                orient="right",
                labelOffset=6,
                gradientLength=min(180, size * cell),
                titleLimit=200,
            ),
        )
    )
    layers = [empty, rects]
    if size <= _COUNTS:
        counts = base.transform_filter("datum.count > 0").mark_text(
            fontSize=13 if size < 13 else 11
        )
        ink = alt.condition(f"datum.share > {_DARK}", alt.value("white"), alt.value("black"))
        layers.append(counts.encode(text=alt.Text("count:Q", format=","), color=ink))
    return alt.layer(*layers).properties(height=size * cell), {"cells": cells}


def _short(name: str) -> str:
    """Returns a name of at most 26 letters, cut in the middle, as ends of names differ."""
    return name if len(name) <= 26 else f"{name[:14]}…{name[-11:]}"
