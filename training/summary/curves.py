"""The picture of a run's curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import altair as alt

from report.theme import QUIET, Records, png, sheet

if TYPE_CHECKING:
    from training.records import Epoch

Panel = alt.LayerChart | alt.FacetChart

# They differ in lightness and dash too, for colour-blind readers and monochrome printers.
_COLOURS = {"training": "#e2803a", "held-out": "#1f63b0"}
_DASHES = {"training": [5, 3], "held-out": [1, 0]}
_WIDTH, _NARROW, _HEIGHT, _GAP = 350, 190, 250, 36
_DOTS = 40  # most epochs for which each has a dot


def curves_png(epochs: Sequence[Epoch], best: Epoch, title: str, subtitle: str) -> bytes:
    """Returns a PNG of loss, top-1 and learning rate over the epochs, with ``best`` circled.

    If images may have several labels, it is the held-out mAP instead of top-1.

    Values that are not finite leave a gap; a panel without values says so.
    """
    several = best.val_map is not None
    lines = {"training": "train_top1", "held-out": "val_top1"}
    if several:
        lines = {"held-out": "val_map"}
    data = {
        "losses": _records(epochs, {"training": "loss", "held-out": "val_loss"}),
        "top1s": _records(epochs, lines, times=100),
        "rates": _records(epochs, {"learning rate": "learning_rate"}),
    }
    low, high = _limits(data["losses"])
    pad = 0.05 * (high - low) or 0.1
    log = low > 0 and high / low > 50
    loss = _panel(
        _lines("losses", data, epochs, colour=True),
        "loss (nats per image, log scale)" if log else "loss (nats per image)",
        alt.Scale(type="log", domain=[low / 1.2, high * 1.2])
        if log
        else alt.Scale(domain=[max(0.0, low - pad), high + pad], nice=False),
        _WIDTH,
    )
    low, high = _limits(data["top1s"])
    pad = max(1.0, 0.05 * (high - low))
    layers = _lines("top1s", data, epochs, colour=True)
    if len(epochs) > 1:
        value = 100 * (best.val_top1 if best.val_map is None else best.val_map)
        data["best"] = [{"epoch": best.epoch, "value": value}]
        layers += _mark_best(f"best held-out: {value:.1f} % in epoch {best.epoch}")
    top1 = _panel(
        layers,
        "mAP (%)" if several else "top-1 (%)",
        alt.Scale(domain=[max(0.0, low - pad), min(100.0, high + pad)], nice=False),
        _WIDTH,
    )
    rate = _panel(
        _lines("rates", data, epochs, colour=False),
        "learning rate",
        alt.Scale(domain=[0, _limits(data["rates"])[1] * 1.1 or 1], nice=False),
        _NARROW,
    )
    chart = alt.hconcat(loss, top1, rate, spacing=_GAP).resolve_scale(
        color="shared", strokeDash="shared"
    )
    return png(sheet(chart, title, [subtitle], data=data, legend="right"))


def _records(epochs: Sequence[Epoch], fields: dict[str, str], *, times: float = 1) -> Records:
    """Returns a record per line and epoch; its value is None, a gap, if it is not finite."""
    records = []
    for line, field in fields.items():
        for epoch in epochs:
            value = getattr(epoch, field)
            drawn = math.isfinite(value)
            record = {"epoch": epoch.epoch, "line": line, "value": value * times if drawn else None}
            records.append(record)
    return records


def _limits(records: Records) -> tuple[float, float]:
    values = _drawn(records) or [0.0]
    return min(values), max(values)


def _drawn(records: Records) -> list[float]:
    return [record["value"] for record in records if record["value"] is not None]


def _mark_best(words: str) -> list[alt.Chart]:
    """Returns a ring around the best epoch, and a text in the corner below a rising curve."""
    ring, text = (alt.Chart(alt.NamedData(name="best")) for _ in range(2))
    colour = _COLOURS["held-out"]
    return [
        ring.mark_point(size=190, filled=False, strokeWidth=1.5, color=colour, opacity=1).encode(
            x="epoch:Q", y="value:Q"
        ),
        text.mark_text(
            text=words, align="right", x=_WIDTH - 6, y=_HEIGHT - 12, fontSize=12, color=colour
        ),
    ]


def _lines(
    name: str, data: dict[str, Records], epochs: Sequence[Epoch], *, colour: bool
) -> list[alt.Chart]:
    """Returns the lines of a panel over the axis of epochs, from the data of that name."""
    first, last = epochs[0].epoch, epochs[-1].epoch
    margin = 0.03 * (last - first) or 0.5
    x = alt.X(
        "epoch:Q",
        title="epoch",
        scale=alt.Scale(domain=[first - margin, last + margin], nice=False),
        axis=alt.Axis(grid=False, format="d", values=_ticks(first, last, 8 if colour else 5)),
    )
    if not _drawn(data[name]):
        nothing = alt.Chart(alt.InlineData(values=[{"epoch": (first + last) / 2}]))
        return [nothing.encode(x=x, y=alt.value(_HEIGHT / 2))]
    base = alt.Chart(alt.NamedData(name=name)).encode(x=x, y="value:Q")
    if colour:
        base = base.encode(color=_told_apart(alt.Color, _COLOURS))
        line = base.mark_line(strokeWidth=2).encode(strokeDash=_told_apart(alt.StrokeDash, _DASHES))
    else:
        base = base.encode(color=alt.value(QUIET))
        line = base.mark_line(strokeWidth=2)
    if len(epochs) > _DOTS:
        return [line]
    return [line, base.mark_point(filled=True, opacity=1, size=50)]


def _told_apart(channel: Any, values: Mapping[str, Any]) -> Any:
    """Returns the lines' ``channel``, with one common legend."""
    legend = alt.Legend(
        orient="top", title=None, symbolType="stroke", symbolSize=500, symbolStrokeWidth=2.5
    )
    scale = alt.Scale(domain=list(values), range=list(values.values()))
    return channel("line:N", scale=scale, legend=legend)


def _ticks(first: int, last: int, most: int) -> list[int]:
    """Returns about ``most`` round numbers from the first epoch to the last."""
    if first == last:
        return [first]
    steps = (digit * 10**power for power in range(9) for digit in (1, 2, 5))
    step = next(step for step in steps if (last - first) / step <= most)
    ticks = [at for at in range(0, last + 1, step) if at >= first]
    near = ticks[0] - first < 0.7 * step  # the two numbers would overlap
    return ticks if near else [first, *ticks]


def _panel(layers: list[alt.Chart], title: str, scale: alt.Scale, width: int) -> Panel:
    """Returns the layers with a value axis; without values, a text that says so."""
    first, *others = layers
    if first.mark is alt.Undefined:
        first = first.mark_text(text=[title, "no value to draw"], color=QUIET)
    else:
        small = max(scale.domain) < 0.01  # as learning rates are: 1e-5 rather than 0.000010
        axis = alt.Axis(tickCount=6, format="~g" if small else alt.Undefined)
        first = first.encode(y=alt.Y("value:Q", title=title, scale=scale, axis=axis))
    return alt.layer(first, *others).properties(width=width, height=_HEIGHT)
