"""Charts of a sweep; the HTML page and the PNG use the same Vega-Lite specifications."""

from __future__ import annotations

import itertools
from typing import Any, Literal

import altair as alt

from artifact.runtimes.base import list_runtimes
from bench.latency.record import Row, Sweep, threads, top1
from bench.measure.spread import Spread
from report.format import millions, ms
from report.labels import HEIGHT, SIDES, WIDTH, place_labels
from report.section import Figure
from report.theme import Records, sheet

Panel = alt.LayerChart | alt.FacetChart

# Medium tones, legible on white and on near black; more than there are runtimes.
_TONES = (
    *("#8b929c", "#b58a5b", "#6f8f3f", "#c9a227", "#3d86d6", "#2fa36b", "#e2803a", "#9a6bd1"),
    *("#d65f93", "#3fa7ad", "#c25b4e", "#7f7fd0", "#a0a83a", "#b06a9c"),
)
SHAPES = {"fp32": "circle", "fp16": "triangle-up", "bf16": "triangle-down", "int8": "diamond"}
_QUIET = "#8b929c"
_ROW_HEIGHT = 30
_LEGEND = (
    "Mark: p50, and how many times faster than torch eager. Band: its 95 % interval. Line: to p95."
)


def draw(sweep: Sweep, title: str, subtitle: str) -> tuple[list[Figure], dict[str, Any] | None]:
    """Returns the charts, and a sheet with all of them (None if nothing was measured).

    Args:
        sweep: the measured sweep.
        title: title of the sheet.
        subtitle: subtitle of the sheet.
    """
    batches = [batch for batch in sweep.batches() if sweep.measured(batch=batch)]
    if not batches:
        return [], None
    single = len(sweep.networks()) == 1
    data = {batch: datasets(sweep, [batch]) for batch in batches}
    figures = [
        Figure(
            title="One image per call" if batch == 1 else f"{batch} images per call",
            caption=_LEGEND,
            chart=dots(sweep, batch),
            data=data[batch],
        )
        for batch in (batches if single else [])
    ]
    stay = "Here all do the same MACs." if single else "Few networks stay on one."
    figures += [
        Figure(
            title=f"Latency against MACs, batch {batch}",
            caption="Both axes are logarithmic. Along a dashed line the rate is constant: "
            f"half the MACs, half the time. {stay}",
            chart=scatter(sweep, batch),
            data=data[batch],
        )
        for batch in batches
    ]
    every = {name: records for each in data.values() for name, records in each.items()}
    below = [subtitle, _LEGEND] if single else [subtitle]
    return figures, sheet(poster(sweep), title, below, data=every)


def points(sweep: Sweep, batch: int) -> list[dict[str, Any]]:
    """Returns chart records, one for each measured row of ``batch``, the fastest first."""
    return [_point(sweep, row) for row in sweep.measured(batch=batch)]


def datasets(sweep: Sweep, batches: list[int]) -> dict[str, Records]:
    """Returns the named data sets that the charts of ``batches`` use."""
    found: dict[str, Records] = {}
    for batch in batches:
        data = points(sweep, batch)
        rates, labels = _diagonals(*_ranges(data), batch)
        fastest = {point["network"]: point for point in reversed(data)}
        several = len(fastest) > 1
        for point in data:  # with a single network, all points are emphasised
            point["best"] = not several or point is fastest[point["network"]]
        found |= {
            f"points {batch}": data,
            f"rates {batch}": rates,
            f"labels {batch}": labels,
            f"names {batch}": place_labels(fastest.values(), *_ranges(data)),
        }
    return found


def dots(sweep: Sweep, batch: int) -> Panel:
    """Returns the chart for a single network: p50, interval and p95, one row per candidate."""
    data = points(sweep, batch)
    top = max(point["p95"] for point in data)
    x = alt.X(
        "p50:Q",
        title=f"latency per call at batch {batch} (ms)",
        scale=alt.Scale(domain=[0, top * 1.02], nice=False),
        axis=alt.Axis(grid=True, tickCount=6),
    )
    y = alt.Y(
        "candidate:N",
        title=None,
        sort=[point["candidate"] for point in data],
        axis=alt.Axis(ticks=False, domain=False, labelLimit=200, labelPadding=10),
    )
    plain = _chart("points", batch).encode(y=y, tooltip=tooltip())
    base = plain.encode(color=colour(data, legend=None))
    tail = base.mark_rule(strokeWidth=1.5, opacity=0.7).encode(x=x, x2="p95:Q")
    end = base.mark_tick(thickness=1.5, size=10, opacity=0.7).encode(x="p95:Q")
    interval = base.mark_rule(strokeWidth=7, opacity=0.35, strokeCap="round").encode(
        x="low:Q", x2="high:Q"
    )
    mark = base.mark_point(size=110, filled=True, opacity=1).encode(
        x=x, shape=shape(data, legend=None)
    )
    text = plain.mark_text(align="left", dy=-11, fontSize=11).encode(x="p50:Q", text="label:N")
    return alt.layer(tail, end, interval, mark, text).properties(
        height=len(data) * _ROW_HEIGHT + 10,
        description=f"Latency of each candidate at batch {batch}; the table below has the figures.",
    )


def scatter(sweep: Sweep, batch: int) -> Panel:
    """Returns the chart of latency against MACs per image, on log scales, one mark per candidate.

    The diagonals are lines of constant MACs per second.
    """
    data = points(sweep, batch)
    x_range, y_range = _ranges(data)
    x = alt.X(
        "macs:Q",
        title="MACs per image (M)",
        scale=alt.Scale(type="log", domain=x_range, nice=False),
        axis=alt.Axis(grid=False, tickCount=5, format="~s"),
    )
    y = alt.Y(
        "p50:Q",
        title=f"latency per call at batch {batch} (ms)",
        scale=alt.Scale(type="log", domain=y_range, nice=False),
        axis=alt.Axis(grid=False, tickCount=5, format="~g"),
    )
    lines = (
        _chart("rates", batch)
        .mark_line(strokeDash=[3, 4], strokeWidth=1, color=_QUIET, opacity=0.6)
        .encode(x=x, y=y, detail="rate:N")
    )
    names = (
        _chart("labels", batch)
        .mark_text(align="right", baseline="bottom", fontSize=10, dx=-3, dy=-2, color=_QUIET)
        .encode(x=x, y=y, text="rate:N")
    )
    marks = _chart("points", batch).encode(
        x=x, y=y, color=colour(data), shape=shape(data), tooltip=tooltip()
    )
    # All candidates of a network have the same MACs, so this line is vertical.
    joined = (
        _chart("points", batch)
        .mark_line(strokeWidth=1, color=_QUIET, opacity=0.45)
        .encode(x=x, y=y, detail="network:N")
    )
    faint = marks.transform_filter("!datum.best").mark_point(size=30, filled=True, opacity=0.35)
    best = marks.transform_filter("datum.best").mark_point(size=120, filled=True, opacity=1)
    layers = [lines, names, joined, faint, best]
    if len(sweep.networks()) > 1:
        layers += [
            _chart("names", batch)
            .transform_filter(f"datum.side == '{side.name}'")
            .mark_text(
                align=side.align, baseline=side.baseline, dx=side.dx, dy=side.dy, fontSize=11
            )
            .encode(x=x, y=y, text="name:N")
            for side in SIDES
        ]
    return alt.layer(*layers).properties(
        height=HEIGHT,
        description=f"Latency against MACs per image at batch {batch}, on log scales.",
    )


def poster(sweep: Sweep) -> alt.VConcatChart:
    """Returns all charts in one, for the PNG."""
    batches = [batch for batch in sweep.batches() if sweep.measured(batch=batch)]
    rows = []
    if len(sweep.networks()) == 1:
        rows.append([dots(sweep, batch) for batch in batches])
    rows.append([scatter(sweep, batch) for batch in batches])
    # Colours and shapes are shared within a line of charts, not across lines: the first line has no
    # legend.
    lines = [
        alt.hconcat(
            *(panel.properties(width=WIDTH) for panel in row), spacing=40, resolve=_scales("shared")
        )
        for row in rows
    ]
    every: alt.VConcatChart = alt.vconcat(*lines, spacing=30, resolve=_scales("independent"))
    return every


def _scales(mode: Literal["shared", "independent"]) -> alt.Resolve:
    return alt.Resolve(scale=alt.ScaleResolveMap(color=mode, shape=mode))


def _point(sweep: Sweep, row: Row) -> dict[str, Any]:
    latency, times, rate = row.latency, sweep.times_torch(row), row.rate
    assert latency is not None, "only measured rows are drawn"
    low, high = latency.interval
    speed = ""
    if isinstance(times, Spread) and row.runtime != "torch":
        speed = f" · {times.median:.1f}x faster"
    return {
        "network": row.network,
        # The data's name is left out where all rows have the same data.
        "name": row.model if len({row.data for row in sweep.rows}) == 1 else row.network,
        "candidate": f"{row.runtime} {row.precision}"
        + (f", {threads(row)}" if len(sweep.threads()) > 1 else ""),
        "runtime": row.runtime,
        "precision": row.precision,
        "batch": row.batch,
        "macs": None if row.macs is None else row.macs / 1e6,
        "p50": latency.p50 * 1e3,
        "low": low * 1e3,
        "high": high * 1e3,
        "p95": latency.p95 * 1e3,
        "label": f"{ms(latency.p50)} ms{speed}",
        "p50, p95, p99 (ms)": " / ".join(map(ms, (latency.p50, latency.p95, latency.p99))),
        "calls": latency.count,
        "GMACs/s": None if rate is None else round(rate / 1e9, 1),
        "MACs per image": None if row.macs is None else millions(row.macs),
        "top-1": top1(row),
    }


def tooltip() -> list[str]:
    """Returns the fields of a point's tooltip."""
    fields = ("network", "candidate", "p50, p95, p99 (ms)", "calls", "GMACs/s", "MACs per image")
    return [f"{field}:N" for field in (*fields, "top-1")]


def colours() -> dict[str, str]:
    """Returns runtime to colour, in the order of the registry."""
    return dict(zip(list_runtimes(), itertools.cycle(_TONES), strict=False))


def colour(data: list[dict[str, Any]], legend: Any = alt.Undefined) -> alt.Color:
    """Returns the colour encoding of the runtimes in ``data``."""
    return alt.Color(
        "runtime:N", title=None, scale=_used(data, "runtime", colours()), legend=legend
    )


def shape(data: list[dict[str, Any]], legend: Any = alt.Undefined) -> alt.Shape:
    """Returns the shape encoding of the precisions in ``data``."""
    return alt.Shape(
        "precision:N", title=None, scale=_used(data, "precision", SHAPES), legend=legend
    )


def _used(data: list[dict[str, Any]], field: str, values: dict[str, str]) -> alt.Scale:
    """Returns a scale with only the names that ``data`` uses, to keep the legend short."""
    used = {point[field] for point in data}
    values = values | dict.fromkeys(sorted(used - values.keys()), _QUIET)  # unknown, in old rows
    names = [name for name in values if name in used]
    return alt.Scale(domain=names, range=[values[name] for name in names])


def _chart(data: str, batch: int) -> alt.Chart:
    return alt.Chart(alt.NamedData(name=f"{data} {batch}"))


def _ranges(data: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Returns the limits of the log axes of MACs and of p50, with a margin around the points."""
    across = [point["macs"] for point in data]
    up = [point["p50"] for point in data]
    return [min(across) / 2.2, max(across) * 2.2], [min(up) / 1.6, max(up) * 1.5]


def _diagonals(
    x_range: list[float], y_range: list[float], batch: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the end points of the constant-rate lines inside the axes, and a label for each.

    ``x`` is in M MACs, ``y`` in ms, so a rate of r GMACs/s is the line y = batch * x / r.
    """
    lines, labels = [], []
    low, high = batch * x_range[0] / y_range[1], batch * x_range[1] / y_range[0]
    steps = (1, 2, 5) if high / low < 100 else (1,)  # for a reasonable number of lines
    for rate in (r * 10**power for power in range(-2, 6) for r in steps):
        left = max(x_range[0], y_range[0] * rate / batch)
        right = min(x_range[1], y_range[1] * rate / batch)
        if left * 1.1 < right:
            name = f"{rate:g} GMACs/s"
            for x in (left, right):
                lines.append({"macs": x, "p50": batch * x / rate, "rate": name})
            labels.append({"macs": right, "p50": batch * right / rate, "rate": name})
    return lines, labels
