"""The layers of a network as tables and a picture. No torch here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert
from rich.table import Table

from bench.layers import LayerTime, LayerTimes
from bench.table import ms, percent, pipe
from models.files import write_whole

SLOWEST = 15
_TEXT = ("Layer", "Kernel", "Kind")
_KIND_COLUMNS = ("Kind", "Kernels", "MACs", "Bytes", "Time", "ms", "GMACs/s", "GB/s")
_LAYER_COLUMNS = ("Layer", "Kernel", "Kind", "M MACs", "MB", "ms", "Time", "GMACs/s", "GB/s")
_NUMERIC = {*_KIND_COLUMNS, *_LAYER_COLUMNS}.difference(_TEXT)
_ORDER = [
    "convolution", "pointwise", "depthwise", "grouped", "linear", "pooling", "element-wise", "data",
]  # fmt: skip
_COLOURS = [
    "#274b7a", "#3d86d6", "#e2803a", "#d65f93", "#9a6bd1", "#2fa36b", "#e0b93e", "#8b929c",
]  # fmt: skip


def write_layers(times: LayerTimes, folder: Path) -> Path:
    """Returns the Markdown file in ``folder`` that now shows ``times``, with a PNG beside it."""
    network = f"{times.artifact.model}-{times.artifact.data}-{times.artifact.name}"
    page = folder / f"layers-{network}.md"
    picture = page.with_suffix(".png")
    write_whole(picture, bytes(vl_convert.vegalite_to_png(chart(times).to_dict(), scale=2)))
    lines = [f"# {title(times)}", "", sentence(times), "", f"![{title(times)}]({picture.name})", ""]
    lines += pipe(_KIND_COLUMNS, kind_rows(times), _NUMERIC)
    lines += ["", "## Every layer, in the order they run", ""]
    lines += pipe(_LAYER_COLUMNS, layer_rows(times, times.layers), _NUMERIC)
    return write_whole(page, "\n".join([*lines, ""]).encode())


def show_layers(times: LayerTimes) -> list[Table]:
    """Returns the tables for a terminal: kinds of layers, and the 15 slowest layers."""
    slowest = layer_rows(times, times.slowest(SLOWEST))
    return [
        _table(_KIND_COLUMNS, kind_rows(times)),
        _table(_LAYER_COLUMNS, slowest),
    ]


def title(times: LayerTimes) -> str:
    """Returns what was measured, in a line."""
    artifact = times.artifact
    threads = "1 thread" if times.threads == 1 else f"{times.threads} threads"
    return (
        f"Layers of {artifact.model}-{artifact.data}, {artifact.name}, ort-cpu, "
        f"batch {times.batch}, {threads}"
    )


def sentence(times: LayerTimes) -> str:
    """Returns where the time goes against where the MACs are, and what the figures add up to."""
    first, *others = times.shares()
    where = [f"{percent(first.time)} of the time is in {first.kind} layers"]
    where[0] += f", with {percent(first.macs)} of the MACs"
    where += [f"{percent(o.time)} in {o.kind} ({percent(o.macs)})" for o in others[:3]]
    added = sum(layer.seconds for layer in times.layers if layer.added) / times.seconds
    return (
        f"{'; '.join(where)}. Kernels that ONNX Runtime added, such as changes of layout, take "
        f"{percent(added)}. All {len(times.layers)} kernels add up to {ms(times.seconds)} ms; a "
        f"call without the profiler takes {ms(times.call.p50)} ms (p50 of {times.call.count:,})."
    )


def kind_rows(times: LayerTimes) -> list[list[str]]:
    """Returns a row for each kind of layer, the one that takes longest first."""
    return [
        [
            share.kind,
            str(share.kernels),
            percent(share.macs),
            percent(share.bytes),
            percent(share.time),
            ms(share.seconds),
            _rate(share.macs * times.macs, share.seconds),
            _rate(share.bytes * times.bytes, share.seconds),
        ]
        for share in times.shares()
    ]


def layer_rows(times: LayerTimes, layers: Iterable[LayerTime]) -> list[list[str]]:
    """Returns a row for each of ``layers``."""
    return [
        [
            f"{layer.name} (added)" if layer.added else layer.name,
            layer.op,
            layer.kind,
            f"{layer.macs / 1e6:.2f}",
            f"{layer.bytes / 1e6:.2f}",
            ms(layer.seconds),
            percent(layer.seconds / times.seconds),
            _rate(layer.macs, layer.seconds),
            _rate(layer.bytes, layer.seconds),
        ]
        for layer in layers
    ]


def chart(times: LayerTimes) -> alt.VConcatChart:
    """Returns where MACs, bytes and milliseconds are, by kind, and the slowest layers."""
    shares = [
        {"what": what, "share": value, "kind": share.kind, "order": _ORDER.index(share.kind)}
        for share in times.shares()
        for what, value in (("MACs", share.macs), ("bytes", share.bytes), ("time", share.time))
    ]
    colour = alt.Color(
        "kind:N",
        title=None,
        sort=_ORDER,
        scale=alt.Scale(domain=_ORDER, range=_COLOURS),
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
    sheet: alt.VConcatChart = (
        alt.vconcat(kinds, layers, spacing=30)
        .properties(title=alt.TitleParams(title(times), anchor="start"), padding=20)
        .configure(background="white", font="sans-serif")
        .configure_view(stroke=None)
        .configure_axis(gridColor="#e6e9ed", labelLimit=260)
    )
    return sheet


def _rate(amount: float, seconds: float) -> str:
    return f"{amount / seconds / 1e9:.1f}" if amount and seconds else "-"


def _table(columns: tuple[str, ...], rows: list[list[str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for name in columns:
        table.add_column(name, justify="right" if name in _NUMERIC else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
