"""Shows predicted latencies beside measured ones: the section of the report on layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import altair as alt

from bench.latency.charts import shape
from bench.layers.prediction import WAYS, Prediction, Score, score
from models.cost import Kind
from report.format import ms, percent
from report.section import Figure, Section, Table

_MODEL, _MACS = "by its layers", "by its MACs"
_COLOURS = {_MODEL: "#3d86d6", _MACS: "#8b929c"}
_FAR = 0.5  # relative error above which a point of the chart is labelled
_NOTES = (
    "A call is predicted by a model that saw no network of its family: not its times, nor those "
    "of its other widths, depths and tweaks. Known of it are the kernels that ONNX Runtime makes "
    "of it, with their MACs and bytes, from one call. A layer takes the estimate of the roofline "
    "times a factor that boosted trees learn from its kind, operator and size; a call takes the "
    "sum of its layers times the median of p50 over the sum of kernels in the other networks, at "
    "its precision and batch size.",
    "What MACs alone predict is learned from the same other networks at the same precision and "
    "batch size: a constant and a rate, or a rate alone, neither negative, by least squares of "
    "relative errors. Errors are of the predicted latency, as a fraction of the measured p50.",
)


def prediction_section(predictions: Sequence[Prediction], unknown: Sequence[str] = ()) -> Section:
    """Returns a section on the errors of predictions, compared with those from MACs alone.

    Args:
        predictions: from :func:`leave_family_out`, at least one.
        unknown: networks that were left out, as their family is unknown.
    """
    sentences = [_sentence(predictions), _farthest(predictions)]
    if unknown:
        sentences.append(f"Left out, as their families are not known: {', '.join(unknown)}.")
    return Section(
        title="Latency predicted from layers",
        sentences=tuple(sentences),
        figures=(
            Figure(
                title="Predicted against measured latency",
                caption="Filled: predicted by its layers. Hollow: by a constant and a rate of "
                "MACs. On the line both are the same; the bands are 10 % and 20 % off. No network "
                "was predicted by one of its family. Both axes are logarithmic.",
                chart=_chart(predictions),
            ),
        ),
        tables=(_scores(predictions), _table(predictions)),
        notes=_NOTES,
    )


def _sentence(predictions: Sequence[Prediction]) -> str:
    layers, line, rate = (score(predictions, by) for by in WAYS)
    networks = len({one.roof.times.network for one in predictions})
    return (
        f"{len(predictions)} calls of {networks} networks, each predicted from networks of other "
        f"families only: by its layers {_words(layers)}; by a constant and a rate of MACs "
        f"{_words(line)}; by a rate of MACs alone {_words(rate)}."
    )


def _words(one: Score) -> str:
    return (
        f"{percent(one.within10, decimals=0)} are within 10 % of what was measured and "
        f"{percent(one.within20, decimals=0)} within 20 %, the median error is "
        f"{percent(one.median, decimals=0)}"
    )


def _farthest(predictions: Sequence[Prediction]) -> str:
    """Returns a sentence on the worst prediction and the kind of layer with the largest error."""
    worst = max(predictions, key=lambda one: abs(one.error()))
    times = worst.roof.times
    over: dict[Kind, float] = {}
    for layer, predicted in zip(times.layers, worst.layers, strict=True):
        over[layer.kind] = over.get(layer.kind, 0.0) + predicted - layer.seconds
    kind = max(over, key=lambda one: abs(over[one]))
    measured = sum(layer.seconds for layer in times.layers if layer.kind == kind)
    return (
        f"Farthest off is {times.network} ({times.precision}, batch {times.batch}): "
        f"{ms(worst.seconds)} ms instead of {ms(worst.measured)}. Of its layers, the {kind} ones "
        f"are predicted to take {ms(measured + over[kind])} ms and take {ms(measured)}."
    )


def _scores(predictions: Sequence[Prediction]) -> Table:
    """Returns the scores of each way to predict, for each setting and for all together."""
    ordered = sorted(predictions, key=lambda one: one.roof.setting)
    groups = [
        (f"{setting[0]}, batch {setting[1]}", list(group))
        for setting, group in groupby(ordered, key=lambda one: one.roof.setting)
    ]
    rows = []
    for name, group in [*groups, ("all", ordered)][len(groups) == 1 :]:
        for by, what in WAYS.items():
            one = score(group, by)
            shares = (one.median, one.within10, one.within20)
            cells = (percent(share, decimals=0) for share in shares)
            rows.append((name, what, str(one.count), *cells))
    header = ("Calls at", "Predicted by", "Calls", "Median error", "Within 10 %", "Within 20 %")
    return Table(header=header, rows=tuple(rows), numeric=frozenset(header[2:]))


def _table(predictions: Sequence[Prediction]) -> Table:
    header = (
        "Network", "Precision", "Batch", "Measured ms", "Predicted ms", "Off", "By MACs ms", "Off ",
    )  # fmt: skip
    rows = tuple(
        (
            one.roof.times.network,
            one.roof.times.precision,
            str(one.roof.times.batch),
            ms(one.measured),
            ms(one.seconds),
            f"{100 * one.error():+.0f} %",
            ms(one.line),
            f"{100 * one.error('line'):+.0f} %",
        )
        for one in sorted(predictions, key=lambda one: (*one.roof.setting, one.measured))
    )
    return Table(header=header, rows=rows, numeric=frozenset(header[2:]))


def _chart(predictions: Sequence[Prediction]) -> Any:
    marks: list[dict[str, Any]] = [
        {
            "network": one.roof.times.network,
            "precision": one.roof.times.precision,
            "batch": one.roof.times.batch,
            "measured": one.measured * 1e3,
            "predicted": value * 1e3,
            "by": by,
            "label": one.roof.times.model if by == _MODEL and abs(one.error()) > _FAR else "",
        }
        for by, value, one in (
            *((_MACS, one.line, one) for one in predictions),
            *((_MODEL, one.seconds, one) for one in predictions),
        )
    ]
    values = [mark[axis] for mark in marks for axis in ("measured", "predicted")]
    ends = [min(values) / 1.3, max(values) * 1.3]
    scale = alt.Scale(type="log", domain=ends, nice=False)
    axis = alt.Axis(grid=False, tickCount=5, format="~g")
    x = alt.X("measured:Q", title="measured p50 (ms)", scale=scale, axis=axis)
    y = alt.Y("predicted:Q", title="predicted (ms)", scale=scale, axis=axis)
    bands = [
        alt.Chart(
            alt.Data(
                values=[{"at": at, "low": at * (1 - off), "high": at * (1 + off)} for at in ends]
            )
        )
        .mark_area(color=_COLOURS[_MODEL], opacity=0.12, clip=True)
        .encode(x=alt.X("at:Q", scale=scale), y=alt.Y("low:Q", scale=scale), y2="high:Q")
        for off in (0.2, 0.1)
    ]
    same = (
        alt.Chart(alt.Data(values=[{"measured": at, "predicted": at} for at in ends]))
        .mark_line(strokeWidth=1, color=_COLOURS[_MACS])
        .encode(x=x, y=y)
    )
    colours = alt.Scale(domain=list(_COLOURS), range=list(_COLOURS.values()))
    base = alt.Chart(alt.Data(values=marks)).encode(
        x=x,
        y=y,
        color=alt.Color("by:N", title=None, scale=colours),
        shape=shape(marks),
        tooltip=["network:N", "precision:N", "batch:O", "measured:Q", "predicted:Q", "by:N"],
    )
    hollow = base.transform_filter(f"datum.by == '{_MACS}'").mark_point(size=55, strokeWidth=1.5)
    filled = base.transform_filter(f"datum.by == '{_MODEL}'").mark_point(
        size=70, filled=True, opacity=0.9
    )
    names = (
        alt.Chart(alt.Data(values=[mark for mark in marks if mark["label"]]))
        .mark_text(align="right", dx=-8, fontSize=10, color=_COLOURS[_MACS])
        .encode(x=x, y=y, text="label:N")
    )
    return alt.layer(*bands, same, hollow, filled, names).properties(
        height=420, description="Predicted against measured latency, on log scales."
    )
