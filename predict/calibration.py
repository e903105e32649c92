"""The section of an evaluation report on calibration: scores compared with accuracy."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from predict.evaluation import Evaluation
from predict.figures import Bin
from report.format import percent, points
from report.section import Figure, Section, Table


def calibration(evaluation: Evaluation) -> Section:
    """Returns the section that compares scores with top-1, with a table of the bins."""
    gap = evaluation.confidence - evaluation.top1
    direction = "more" if gap > 0 else "less"
    header = ("Score", "Images", "Mean score", "Top-1")
    return Section(
        title="Calibration",
        sentences=(
            f"The mean score of the answers is {percent(evaluation.confidence)}, "
            f"{points(abs(gap))} {direction} than top-1; the expected calibration error is "
            f"{percent(evaluation.calibration_error)}.",
        ),
        tables=(
            Table(
                header=header,
                rows=tuple(
                    (
                        f"{each.low * 100:.1f} to {percent(each.high)}",
                        f"{each.images:,}",
                        percent(each.confidence),
                        percent(each.top1),
                    )
                    for each in evaluation.bins
                    if each.confidence is not None and each.top1 is not None
                ),
                numeric=frozenset(header),
            ),
        ),
        folded="Bins with images",
    )


def reliability_chart(bins: Sequence[Bin], height: int) -> Figure:
    """Returns the reliability diagram of ``bins``, ``height`` pixels high."""
    axis, whole = alt.Axis(format="%", tickCount=6), alt.Scale(domain=[0, 1])
    values = [
        {"low": each.low, "high": each.high, "top1": each.top1, "images": each.images}
        for each in bins
        if each.images
    ]
    bars = (
        alt.Chart(alt.InlineData(values=values))
        .mark_bar(color="#6baed6")
        .encode(
            x=alt.X("low:Q", title="score of the answer", scale=whole, axis=axis),
            x2="high:Q",
            y=alt.Y("top1:Q", title="classified correctly", scale=whole, axis=axis),
            y2=alt.datum(0),
            tooltip=[
                alt.Tooltip("images:Q", format=","),
                alt.Tooltip("top1:Q", title="top-1", format=".1%"),
            ],
        )
    )
    line = (
        alt.Chart(alt.InlineData(values=[{"low": 0, "top1": 0}, {"low": 1, "top1": 1}]))
        .mark_line(color="#e2803a", strokeDash=[5, 3])
        .encode(x="low:Q", y="top1:Q")
    )
    return Figure(
        title="Top-1 by score",
        caption="Bars: share of the images in a bin of scores that are classified correctly. "
        "Line: where that equals the score. A bar below the line: the scores are too high.",
        chart=alt.layer(bars, line).properties(height=height),
    )
