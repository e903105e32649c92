"""Makes the report of drift."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

import altair as alt
import numpy as np

from artifact.drift import BINS, CLASSES, LARGE, MODERATE, decile_shares
from artifact.profile import SCORE
from predict.drift import SIGNIFICANT, DriftFindings
from report.format import percent, plural
from report.section import Figure, Report, Section, Table
from report.theme import sheet

NAME = "drift"
_MOST = 20  # classes in the table and the chart
_PARTS = 24  # most points of the course of time
_BEFORE, _NOW = "before", "now"
_CLOCK, _MINUTE = timedelta(milliseconds=10), timedelta(minutes=1)
_FORMS = (
    (timedelta(minutes=20), "%H:%M:%S"),
    (timedelta(days=1), "%H:%M"),
    (timedelta(days=4), "%b %d %H:%M"),
    (timedelta(days=300), "%b %d"),
)  # of the labels of the axis, up to that span
_HEADER = ("feature", "median before", "median now", "PSI", "PSI by chance", "statistic", "p")


def drift_report(found: DriftFindings) -> Report:
    """Returns the report of ``found``."""
    figure = _distributions(found)
    first, last = found.observed.times[0], found.observed.times[-1]
    subtitle = (
        f"{plural(len(found.observed.classes), 'answer')} from {_told(first, last - first)} to "
        f"{_told(last, last - first)} UTC in {found.log}, against {found.origin}"
    )
    names = [row.feature for row in found.changed]
    title = f"Drift: {', '.join(names)}" if names else "No drift found"
    return Report(
        name=NAME,
        title=title,
        subtitle=subtitle,
        summary=tuple(_summary(found)),
        terminal=_table(found),
        figures=(figure,),
        poster=sheet(figure.chart, title, [subtitle], legend="right"),
        poster_alt=figure.title,
        sections=(
            Section(title="Features", tables=(_table(found),)),
            _classes(found),
            _course(found),
        ),
        method=_METHOD,
    )


_METHOD = (
    f"PSI is the population stability index over the deciles of what was before ({BINS} bins), or "
    f"over the classes. The usual reading is: below {MODERATE:g} no change, from {LARGE:g} a large "
    "one (Siddiqi, Credit Risk Scorecards, 2006). By chance it is about the number of bins less "
    "one, times the sum of the reciprocals of both numbers of images: of few answers, or of many "
    "classes, a large index says nothing.",
    "The statistic is that of Kolmogorov and Smirnov for two samples, of classes that of the "
    "chi-squared test, with labels of fewer than five expected images taken together. p is "
    f"corrected for the number of features by Holm. Drift is called what has p below "
    f"{SIGNIFICANT:g} and a PSI of at least {MODERATE:g}.",
    "Brightness is the mean of the luma, contrast its standard deviation, saturation the mean "
    "difference of the largest and the smallest colour of a pixel, sharpness the mean difference "
    "of neighbouring pixels: all of the pixels that the network got, from 0 to 1. The score is "
    "that of the likeliest label.",
    "None of this says that the answers are worse: only labelled images can. Drift says that they "
    "may be, and that the figures of the export are of other images.",
)


def _summary(found: DriftFindings) -> Iterator[str]:
    names = {row.feature: row for row in found.changed}
    if not names:
        yield "No feature differs by more than chance and by enough to matter."
    for name, row in names.items():
        size = "much" if row.psi >= LARGE else "somewhat"
        if row.before is None or row.now is None:
            yield f"The shares of the classes are {size} different (PSI {row.psi:.2f})."
        else:
            yield (
                f"The {name} is {size} different (PSI {row.psi:.2f}): its median was "
                f"{row.before:.3f} and is {row.now:.3f}."
            )
    if other := found.observed.other:
        yield f"{plural(other, 'answer')} of other artifacts in the log were left out."


def _table(found: DriftFindings) -> Table:
    answers, images = len(found.observed.classes), found.profile.images
    rows = []
    for row, p in zip(found.rows, found.p_values, strict=True):
        bins = np.count_nonzero(found.profile.classes) if row.feature == CLASSES else BINS
        chance = (bins - 1) * (1 / answers + 1 / images)
        medians = ("", "") if row.before is None else (f"{row.before:.3f}", f"{row.now:.3f}")
        rows.append(
            (
                *(row.feature, *medians, f"{row.psi:.3f}", f"{chance:.3f}"),
                *(f"{row.statistic:.3g}", "< 0.001" if p < 0.001 else f"{p:.3f}"),
            )
        )
    changed = {row.feature for row in found.changed}
    strong = frozenset(index for index, row in enumerate(found.rows) if row.feature in changed)
    return Table(header=_HEADER, rows=tuple(rows), numeric=frozenset(_HEADER[1:]), strong=strong)


def _distributions(found: DriftFindings) -> Figure:
    values = []
    for feature in found.profile.quantiles:
        before, now = decile_shares(found.profile, feature, found.observed.features[feature])
        for index, shares in enumerate(zip(before, now, strict=True)):
            for name, share in zip((_BEFORE, _NOW), shares, strict=True):
                values.append({"feature": feature, "bin": index + 1, "what": name, "share": share})
    colours = alt.Scale(domain=[_BEFORE, _NOW], range=["#b8bfc8", "#1f6f8b"])
    chart = (
        alt.Chart(alt.Data(values=values))
        .mark_bar()
        .encode(
            x=alt.X("bin:O", title="decile of what was before", axis=alt.Axis(labelAngle=0)),
            xOffset=alt.XOffset("what:N", sort=[_BEFORE, _NOW]),
            y=alt.Y("share:Q", title=None, axis=alt.Axis(format="%", tickCount=3)),
            color=alt.Color("what:N", title=None, scale=colours),
            row=alt.Row("feature:N", sort=list(found.profile.quantiles), title=None),
        )
        .properties(height=80)
    )
    return Figure(
        title="Images and scores now, in the deciles of before",
        caption="Shares of the images. Without drift the bars of a decile are equally high.",
        chart=chart,
    )


def _classes(found: DriftFindings) -> Section:
    before = np.asarray(found.profile.classes) / found.profile.images
    now = np.bincount(found.observed.classes, minlength=len(before)) / len(found.observed.classes)
    most = np.argsort(-np.abs(now - before), kind="stable")[:_MOST]
    header = ("label", "share before", "share now")
    rows = tuple((found.labels[n], percent(before[n]), percent(now[n])) for n in most)
    return Section(
        title="Classes whose share changed most",
        tables=(Table(header=header, rows=rows, numeric=frozenset(header[1:])),),
    )


def _told(when: datetime, span: timedelta) -> str:
    """Returns a time of a log that is as long as ``span``, to the minute or the millisecond."""
    if span < _MINUTE:
        return when.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    return when.strftime("%Y-%m-%d %H:%M")


def _course(found: DriftFindings) -> Section:
    """Returns the course of time: mean score and brightness of successive answers."""
    values = []
    times = found.observed.times
    count = len(times)
    for part in np.array_split(np.arange(count), min(_PARTS, max(count // 25, 1))):
        middle = part[len(part) // 2]
        moment = {
            "time": times[middle].isoformat(),
            "seconds": (times[middle] - times[0]).total_seconds(),
            "answer": int(middle) + 1,
        }
        for feature in (SCORE, "brightness"):
            mean = float(found.observed.features[feature][part].mean())
            values.append({**moment, "feature": feature, "mean": mean})
    chart = (
        alt.Chart(alt.Data(values=values))
        .mark_line(point=True)
        .encode(
            x=_axis(times[0], times[-1] - times[0]),
            y=alt.Y("mean:Q", title="mean", scale=alt.Scale(zero=False)),
            color=alt.Color("feature:N", title=None),
        )
        .properties(height=200)
    )
    return Section(
        title="In the course of time",
        figures=(
            Figure(
                title="Score and brightness in the course of time",
                caption="Means of successive answers, as many in each point.",
                chart=chart,
            ),
        ),
    )


def _axis(first: datetime, span: timedelta) -> alt.X:
    """Returns the axis of the course of time: a clock, or seconds, of too few of them the order."""
    if span < _CLOCK:
        return alt.X("answer:Q", title="answers, in their order", scale=alt.Scale(zero=False))
    if span < _MINUTE:
        return alt.X("seconds:Q", title=f"seconds after {_told(first, span)} UTC")
    form = next((form for most, form in _FORMS if span < most), "%Y-%m-%d")
    axis = alt.Axis(format=form, labelOverlap=True)
    return alt.X("time:T", title="UTC", scale=alt.Scale(type="utc"), axis=axis)
