"""Charts of layer times and of the roofline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from bench.layers.peaks import Peaks
from bench.layers.record import LayerTimes
from bench.layers.roofline import Roof
from models.cost import Kind
from report.format import percent

SLOWEST = 15
KIND_COLOURS: dict[Kind, str] = {
    "convolution": "#274b7a",
    "pointwise": "#3d86d6",
    "depthwise": "#e2803a",
    "grouped": "#d65f93",
    "linear": "#9a6bd1",
    "pooling": "#2fa36b",
    "element-wise": "#e0b93e",
    "data": "#8b929c",
}
_QUIET = "#8b929c"


def layer_chart(times: LayerTimes) -> alt.VConcatChart:
    """Returns the chart of MACs, bytes and time by kind of layer, and of the slowest layers."""
    order = list(KIND_COLOURS)
    shares = [
        {"what": what, "share": value, "kind": share.kind, "order": order.index(share.kind)}
        for share in times.shares()
        for what, value in (("MACs", share.macs), ("bytes", share.bytes), ("time", share.time))
    ]
    colour = alt.Color(
        "kind:N",
        title=None,
        sort=order,
        scale=alt.Scale(domain=order, range=list(KIND_COLOURS.values())),
        legend=alt.Legend(orient="bottom", columns=8),
    )
    share = alt.X("share:Q", title=None, axis=alt.Axis(format="%", tickCount=5))
    kinds = (
        alt.Chart(alt.Data(values=shares))
        .mark_bar()
        .encode(
            y=alt.Y("what:N", title=None, sort=["MACs", "bytes", "time"]),
            x=share,
            color=colour,
            order="order:Q",
        )
        .properties(width=700, height=110)
    )
    slowest = times.slowest(SLOWEST)
    macs = times.macs or 1
    bars: list[dict[str, Any]] = [
        {"layer": layer.name, "kind": layer.kind, "share": value, "what": what}
        for layer in slowest
        for what, value in (
            ("time", layer.seconds / times.seconds),
            ("MACs", layer.macs / macs),
        )
    ]
    base = alt.Chart(alt.Data(values=bars)).encode(
        y=alt.Y("layer:N", title=None, sort=[layer.name for layer in slowest]), x=share
    )
    of_time = base.transform_filter("datum.what == 'time'").mark_bar(height=12).encode(color=colour)
    of_macs = base.transform_filter("datum.what == 'MACs'").mark_tick(thickness=3, color="black")
    layers = alt.layer(of_time, of_macs).properties(
        width=700,
        height={"step": 18},
        title=f"The {len(slowest)} slowest layers: bar, share of the time; tick, share of the MACs",
    )
    return alt.vconcat(kinds, layers, spacing=30)


def roofline_chart(roofs: Sequence[Roof], peaks: Peaks) -> Any:
    """Returns the roofline chart: the rate of each kind of layer against its operations per byte.

    Args:
        roofs: networks of one precision.
        peaks: peaks that are drawn as lines.
    """
    marks = [mark for roof in roofs for mark in _marks(roof)]
    used = [kind for kind in KIND_COLOURS if any(mark["kind"] == kind for mark in marks)]
    peak = peaks.flops[roofs[0].times.precision] / 1e9
    across = [mark["intensity"] for mark in marks]
    low, high = min(across) / 1.6, max(across) * 1.6
    bottom = min(mark["rate"] for mark in marks) / 1.6
    x = alt.X(
        "intensity:Q",
        title="operations per byte moved (2 x MACs / B)",
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(grid=False, tickCount=5, format="~g"),
    )
    y = alt.Y(
        "rate:Q",
        title="operations per second (G/s)",
        scale=alt.Scale(type="log", domain=[bottom, peak * 1.8], nice=False),
        axis=alt.Axis(grid=False, tickCount=5, format="~g"),
    )
    lines, names = _roofs(peak, peaks, low, high, bottom)
    points = (
        alt.Chart(alt.Data(values=marks))
        .mark_point(size=70, filled=True, opacity=0.85)
        .encode(
            x=x,
            y=y,
            color=alt.Color(
                "kind:N",
                title=None,
                scale=alt.Scale(domain=used, range=[KIND_COLOURS[kind] for kind in used]),
            ),
            tooltip=["network:N", "kind:N", "share of time:N", "intensity:Q", "rate:Q"],
        )
    )
    rules = (
        alt.Chart(alt.Data(values=lines))
        .mark_line(strokeWidth=1.5, color=_QUIET)
        .encode(x=x, y=y, detail="roof:N")
    )
    text = (
        alt.Chart(alt.Data(values=names))
        .mark_text(align="left", baseline="bottom", fontSize=10, dx=4, dy=-4, color=_QUIET)
        .encode(x=x, y=y, text="roof:N")
    )
    return alt.layer(rules, text, points).properties(
        height=320, description="Rate of each kind of layer against operations per byte."
    )


def _marks(roof: Roof) -> list[dict[str, Any]]:
    """Returns a chart record for each kind of layer of ``roof`` that has MACs."""
    found = []
    for share in roof.times.shares():
        layers = [layer for layer in roof.times.layers if layer.kind == share.kind]
        operations = 2 * sum(layer.macs for layer in layers)
        if operations:
            found.append(
                {
                    "network": roof.times.network,
                    "kind": share.kind,
                    "share of time": percent(share.time),
                    "intensity": operations / sum(layer.traffic for layer in layers),
                    "rate": operations / share.seconds / 1e9,
                }
            )
    return found


def _roofs(
    peak: float, peaks: Peaks, low: float, high: float, bottom: float
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Returns the end points of the roofs inside the axes, and a label for each."""
    lines: list[dict[str, Any]] = []
    labels: list[dict[str, Any]] = []
    sizes = [size for size, _ in peaks.bandwidth]
    for size in (sizes[0], sizes[-1]):
        rate = peaks.rate(size) / 1e9
        name = f"{rate:,.0f} GB/s within {size_name(size)}"
        left = max(low, bottom / rate)
        lines += [{"intensity": at, "rate": at * rate, "roof": name} for at in (left, peak / rate)]
        labels.append({"intensity": left, "rate": left * rate, "roof": name})
    name = f"{peak:,.0f} G/s"
    knee = peak / (peaks.rate(sizes[0]) / 1e9)
    lines += [{"intensity": at, "rate": peak, "roof": name} for at in (knee, high)]
    labels.append({"intensity": knee, "rate": peak, "roof": name})
    return lines, labels


def size_name(size: int) -> str:
    """Returns a size in bytes as text, such as ``64 KB`` or ``256 MB`` (powers of 1024)."""
    return f"{size >> 20} MB" if size >= 1 << 20 else f"{size >> 10} KB"
