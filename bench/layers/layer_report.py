"""The layers of a network as tables and a picture."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import altair as alt

from bench.layers.layers import LayerTime, LayerTimes
from bench.layers.roofline import LIMITS, Roof
from core.files import write_whole
from core.machine import Machine
from models.cost import Kind
from report.format import ms, percent
from report.markdown import pipe
from report.section import Table
from report.theme import png, sheet

SLOWEST = 15
NOTES = (
    "Layers are kernels of ONNX Runtime's profile, each with what was fused into it. A kernel's "
    "time is the mean of the middle half of its runs. What the profiler itself takes for each "
    "kernel is measured on kernels that do next to nothing, and taken off.",
    "MB of a layer are what its kernel cannot but move, in the type that the runtime holds it in; "
    "Bytes of a kind are those of the network as papers count them: input, weights and output of "
    "each layer, as if none was fused.",
    "A layer's bound is the least time for its operations at the peak of its precision, for its "
    "bytes from the cache that holds them, or for the call of a kernel: whichever is longest. "
    "Peaks are those of this machine, measured right after the layers.",
)
_TEXT = ("Layer", "Kernel", "Kind", "Bound by")
_KIND_COLUMNS = ("Kind", "Kernels", "MACs", "Bytes", "Time", "ms", "GMACs/s", "GB/s")
_LAYER_COLUMNS = (
    "Layer", "Kernel", "Kind", "M MACs", "MB", "ms", "Time", "GMACs/s", "GB/s",
    "Bound by", "x bound",
)  # fmt: skip
_NUMERIC = {*_KIND_COLUMNS, *_LAYER_COLUMNS}.difference(_TEXT)
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


def write_layers(roof: Roof, machine: Machine, folder: Path) -> Path:
    """Returns the Markdown file in ``folder`` that now shows ``roof``, with a PNG beside it."""
    times = roof.times
    page = folder / f"layers-{times.network}-onnx-{times.precision}.md"
    picture = page.with_suffix(".png")
    write_whole(picture, png(sheet(chart(times), title(times), [where(times, machine)])))
    lines = [f"# {title(times)}", "", where(times, machine), "", sentence(times), ""]
    lines += [limit_sentence(roof), "", f"![{title(times)}]({picture.name})", ""]
    lines += pipe(_table(_KIND_COLUMNS, kind_rows(times)))
    lines += ["", "## Every layer, in the order they run", ""]
    lines += pipe(_table(_LAYER_COLUMNS, layer_rows(roof, times.layers)))
    lines += ["", "## How it was measured", "", *(f"- {note}" for note in NOTES)]
    return write_whole(page, "\n".join([*lines, ""]).encode())


def show_layers(roof: Roof) -> list[Table]:
    """Returns the tables for a terminal: kinds of layers, and the 15 slowest layers."""
    slowest = layer_rows(roof, roof.times.slowest(SLOWEST))
    return [
        _table(_KIND_COLUMNS, kind_rows(roof.times)),
        _table(_LAYER_COLUMNS, slowest),
    ]


def title(times: LayerTimes) -> str:
    """Returns what was measured, in a line."""
    threads = "1 thread" if times.threads == 1 else f"{times.threads} threads"
    what = f"Layers of {times.network}, onnx-{times.precision}"
    return f"{what}, ort-cpu, batch {times.batch}, {threads}"


def where(times: LayerTimes, machine: Machine) -> str:
    """Returns which machine it was measured on, by which version, and when."""
    assert times.machine == machine.key, "measured on another machine"
    cores = "1 core" if machine.cores == 1 else f"{machine.cores} cores"
    version = machine.versions["onnxruntime"]
    return f"{machine.cpu}, {cores}, ONNX Runtime {version}, {times.when.partition('T')[0]}"


def sentence(times: LayerTimes) -> str:
    """Returns where the time goes against where the MACs are, and what the kernels add up to."""
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


def limit_sentence(roof: Roof) -> str:
    """Returns how far a call is from its lower limit, and what bounds its layers."""
    return (
        f"A call takes {roof.ratio:.1f} times its lower limit of {ms(roof.limit)} ms: "
        f"{bound_shares(roof)}."
    )


def bound_shares(roof: Roof) -> str:
    """Returns what share of a network's time is bound by what, the largest first."""
    shares = roof.shares()
    ranked = sorted(LIMITS, key=lambda limit: -shares[limit])
    first, *others = (f"{percent(shares[limit], decimals=0)}" for limit in ranked)
    return (
        f"{first} of its time is in {ranked[0]}-bound layers, {others[0]} in {ranked[1]}-bound, "
        f"{others[1]} in {ranked[2]}-bound ones"
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


def layer_rows(roof: Roof, layers: Iterable[LayerTime]) -> list[list[str]]:
    """Returns a row for each of ``layers``, which are of ``roof``."""
    bounds = {id(layer): bound for layer, bound in roof.pairs()}
    return [
        [
            f"{layer.name} (added)" if layer.added else layer.name,
            layer.op,
            layer.kind,
            f"{layer.macs / 1e6:.2f}",
            f"{layer.traffic / 1e6:.2f}",
            ms(layer.seconds),
            percent(layer.seconds / roof.times.seconds),
            _rate(layer.macs, layer.seconds),
            _rate(layer.traffic, layer.seconds),
            bounds[id(layer)].by,
            f"{layer.seconds / bounds[id(layer)].seconds:.1f}",
        ]
        for layer in layers
    ]


def chart(times: LayerTimes) -> alt.VConcatChart:
    """Returns where MACs, bytes and milliseconds are, by kind, and the slowest layers."""
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


def _rate(amount: float, seconds: float) -> str:
    return f"{amount / seconds / 1e9:.1f}" if amount and seconds else "-"


def _table(columns: tuple[str, ...], rows: list[list[str]]) -> Table:
    return Table(header=columns, rows=tuple(map(tuple, rows)), numeric=frozenset(_NUMERIC))
