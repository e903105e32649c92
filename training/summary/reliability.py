"""Reliability diagrams: the share of right answers by their score."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from report.section import Figure
from report.theme import png, sheet
from training.summary.calibration import Bin

_SIDE = 300


def reliability_png(
    panels: Sequence[tuple[str, Sequence[Bin]]], title: str, *, several: bool = False
) -> bytes:
    """Returns a PNG with the reliability diagram of each panel, side by side: name and bins."""
    figures = [(name, reliability_chart(bins, _SIDE, several=several)) for name, bins in panels]
    charts = [figure.chart.properties(title=name, width=_SIDE) for name, figure in figures]
    caption = figures[0][1].caption
    return png(sheet(alt.hconcat(*charts, spacing=40), title, [caption]))


def reliability_chart(bins: Sequence[Bin], height: int, *, several: bool = False) -> Figure:
    """Returns the reliability diagram of ``bins``, ``height`` pixels high.

    It is of answers, or, if an image may have ``several`` labels, of pairs of image and label.
    """
    share = "images with the label" if several else "classified correctly"
    axis, whole = alt.Axis(format="%", tickCount=6), alt.Scale(domain=[0, 1])
    values = [
        {
            "low": each.low,
            "high": each.high,
            "middle": (each.low + each.high) / 2,
            "top1": each.top1,
            "images": each.images,
        }
        for each in bins
        if each.images
    ]
    base = alt.Chart(alt.InlineData(values=values))
    bars = base.mark_bar(color="#6baed6").encode(
        x=alt.X("low:Q", title="score", scale=whole, axis=axis),
        x2="high:Q",
        y=alt.Y("top1:Q", title=share, scale=whole, axis=axis),
        y2=alt.datum(0),
        tooltip=[
            alt.Tooltip("images:Q", format=","),
            alt.Tooltip("top1:Q", title=share, format=".1%"),
        ],
    )
    counts = base.mark_text(angle=270, align="left", dx=4, fontSize=10, color="#20242b").encode(
        x="middle:Q", y=alt.datum(0), text=alt.Text("images:Q", format=",")
    )
    line = (
        alt.Chart(alt.InlineData(values=[{"low": 0, "top1": 0}, {"low": 1, "top1": 1}]))
        .mark_line(color="#e2803a", strokeDash=[5, 3])
        .encode(x="low:Q", y="top1:Q")
    )
    what = (
        "share of the pairs of image and label in a bin of scores of which the image has the label"
        if several
        else "share of the images in a bin of scores that are classified correctly"
    )
    return Figure(
        title="Labels by score" if several else "Top-1 by score",
        caption=f"Bars: {what}, with their number. Line: where that equals the score. A bar below "
        "the line: the scores are too high.",
        chart=alt.layer(bars, counts, line).properties(height=height),
    )
