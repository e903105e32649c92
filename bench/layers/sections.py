"""Reports on layers: the page of one network, and the roofline section on many."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path
from statistics import median

from bench.layers.charts import SLOWEST, layer_chart, roofline_chart, size_name
from bench.layers.measure import Missing
from bench.layers.peaks import Peaks
from bench.layers.record import LayerTime, LayerTimes
from bench.layers.roofline import AGREES, LIMITS, Part, Roof
from core.files import write_whole
from core.machine import Machine
from report.format import ms, percent
from report.markdown import pipe
from report.section import Figure, Section, Table
from report.theme import png, sheet

LAYER_NOTES = (
    "Layers are kernels of ONNX Runtime's profile, each with what was fused into it. A kernel's "
    "time is the mean of the middle half of its runs, without those that waited for another "
    "program. What the profiler itself takes for each kernel is measured on kernels that do next "
    "to nothing, and taken off.",
    "MB of a layer are what its kernel cannot but move, in the type that the runtime holds it in; "
    "Bytes of a kind are those of the network as papers count them: input, weights and output of "
    "each layer, as if none was fused.",
    "A layer's bound is the least time for its operations at the peak of its precision, for its "
    "bytes from the cache that holds them, or for the call of a kernel: whichever is longest. "
    "Peaks are those of this machine, measured right after the layers.",
)
_NAMED = 0.1  # least share of the time above a limit that is named in a network's row
_TEXT = ("Layer", "Kernel", "Kind", "Bound by")
_KIND_COLUMNS = ("Kind", "Kernels", "MACs", "Bytes", "Time", "ms", "GMACs/s", "GB/s")
_LAYER_COLUMNS = (
    "Layer", "Kernel", "Kind", "M MACs", "MB", "ms", "Time", "GMACs/s", "GB/s",
    "Bound by", "x bound",
)  # fmt: skip
_NUMERIC = {*_KIND_COLUMNS, *_LAYER_COLUMNS}.difference(_TEXT)
_NOTES = (
    "Lower limits are a roofline (Williams, Waterman and Patterson, CACM 2009) for each kernel "
    "that ONNX Runtime runs: the longest of its operations (2 x MACs) at the peak of the precision "
    "it computes in, of its bytes at the bandwidth of where they lie, and of the call of a kernel. "
    "The limit of a network is their sum.",
    "Bytes are those that a kernel cannot but move, in the type that the runtime holds them in: "
    "input and output at the bandwidth of a set of their size, weights at that of all weights of "
    "the network, as the others have passed since they were read last.",
    "Peaks are the best of all repetitions, measured right after the layers they bound: of several "
    "matrix products and convolutions in ONNX Runtime, and of copying and reading memory in NumPy "
    "within sets from 64 KB to 256 MB for each thread. The bandwidth of a set is that of the "
    "largest measured set that is no larger. The call of a kernel is what a chain of 100 kernels "
    "of one float takes longer than one of 10.",
    "The time of a kernel is the mean of the middle half of its runs in ONNX Runtime's profile "
    "(runs that waited for another program are left out: over 1.25 times the lower quartile and "
    "0.1 ms), without what the profiler itself takes, which is measured on such chains; it is "
    "never less than the call of a kernel. Profiled calls take turns with calls without it, on "
    f"the golden images of each artifact: where the two, or these and the call that the table of "
    f"latencies shows, are more than {percent(AGREES, decimals=0)} apart, the layers explain "
    "nothing and are left out. The time of a call is its median: of CPU time where one thread "
    "computes and it was counted, else by wall clock.",
    "Where the rest goes: kernels of a kind, with their time above their bounds in ms, and in "
    "brackets their bounds over their time: 100 % is what this machine can do. Of peak operations "
    "is what their MACs would take at the peak, over their time. One-pixel pointwise layers are "
    "those of squeeze-and-excitation, layout is between NCHW and ONNX Runtime's blocks of "
    "channels; data copies, slices or converts. Outside kernels are Python and the runtime; below "
    "0, kernels added up to more than a call, as long ones do on a busy machine.",
)


def write_layers(roof: Roof, machine: Machine, folder: Path) -> Path:
    """Writes the Markdown page of ``roof`` and its PNG into ``folder``; returns the page's path."""
    times = roof.times
    page = folder / f"layers-{times.network}-onnx-{times.precision}.md"
    picture = page.with_suffix(".png")
    write_whole(picture, png(sheet(layer_chart(times), title(times), [where(times, machine)])))
    lines = [f"# {title(times)}", "", where(times, machine), "", sentence(times), ""]
    lines += [limit_sentence(roof), "", f"![{title(times)}]({picture.name})", ""]
    lines += pipe(_rows_table(_KIND_COLUMNS, kind_rows(times)))
    lines += ["", "## Every layer, in the order they run", ""]
    lines += pipe(_rows_table(_LAYER_COLUMNS, layer_rows(roof, times.layers)))
    lines += ["", "## How it was measured", "", *(f"- {note}" for note in LAYER_NOTES)]
    return write_whole(page, "\n".join([*lines, ""]).encode())


def show_layers(roof: Roof) -> list[Table]:
    """Returns the tables for a terminal: kinds of layers, and the 15 slowest layers."""
    slowest = layer_rows(roof, roof.times.slowest(SLOWEST))
    return [
        _rows_table(_KIND_COLUMNS, kind_rows(roof.times)),
        _rows_table(_LAYER_COLUMNS, slowest),
    ]


def title(times: LayerTimes) -> str:
    """Returns the title: network, artifact, runtime, batch size and threads."""
    threads = "1 thread" if times.threads == 1 else f"{times.threads} threads"
    what = f"Layers of {times.network}, onnx-{times.precision}"
    return f"{what}, ort-cpu, batch {times.batch}, {threads}"


def where(times: LayerTimes, machine: Machine) -> str:
    """Returns the machine, the version of ONNX Runtime and the date, in one line."""
    assert times.machine == machine.key, "measured on another machine"
    cores = "1 core" if machine.cores == 1 else f"{machine.cores} cores"
    version = machine.versions["onnxruntime"]
    return f"{machine.cpu}, {cores}, ONNX Runtime {version}, {times.when.partition('T')[0]}"


def sentence(times: LayerTimes) -> str:
    """Returns sentences on the time and MACs of each kind of layer, and the sum of the kernels."""
    first, *others = times.shares()
    where = [f"{percent(first.time)} of the time is in {first.kind} layers"]
    where[0] += f", with {percent(first.macs)} of the MACs"
    where += [f"{percent(o.time)} in {o.kind} ({percent(o.macs)})" for o in others[:3]]
    added = sum(layer.seconds for layer in times.layers if layer.added) / times.seconds
    return (
        f"{'; '.join(where)}. Kernels that ONNX Runtime added, such as changes of layout, take "
        f"{percent(added)}. All {len(times.layers)} kernels add up to {ms(times.seconds)} ms; a "
        f"call without the profiler takes {ms(times.call_seconds)} ms (p50 of "
        f"{times.call.count:,})."
    )


def limit_sentence(roof: Roof) -> str:
    """Returns a sentence on the ratio of latency to lower limit, and on what bounds the layers."""
    return (
        f"A call takes {roof.ratio:.1f} times its lower limit of {ms(roof.limit)} ms: "
        f"{bound_shares(roof)}."
    )


def bound_shares(roof: Roof) -> str:
    """Returns the share of a network's time that each limit bounds, the largest first, as text."""
    shares = roof.shares()
    ranked = sorted(LIMITS, key=lambda limit: -shares[limit])
    first, *others = (f"{percent(shares[limit], decimals=0)}" for limit in ranked)
    return (
        f"{first} of its time is in {ranked[0]}-bound layers, {others[0]} in {ranked[1]}-bound, "
        f"{others[1]} in {ranked[2]}-bound ones"
    )


def kind_rows(times: LayerTimes) -> list[list[str]]:
    """Returns a table row for each kind of layer, the slowest first."""
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
    """Returns a table row for each of ``layers``, which must belong to ``roof``."""
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


def _rate(amount: float, seconds: float) -> str:
    return f"{amount / seconds / 1e9:.1f}" if amount and seconds else "-"


def _rows_table(columns: tuple[str, ...], rows: list[list[str]]) -> Table:
    return Table(header=columns, rows=tuple(map(tuple, rows)), numeric=frozenset(_NUMERIC))


def roofline_section(roofs: Sequence[Roof], missing: Sequence[Missing] = ()) -> Section:
    """Returns the section on limits, what bounds each network, and networks without layers."""
    ordered = sorted(roofs, key=lambda roof: (*roof.setting, roof.ratio))
    groups = [list(group) for _, group in groupby(ordered, key=lambda roof: roof.setting)]
    sentences = [_limits_sentence(group) for group in groups]
    tables = []
    latest = max((roof.peaks for roof in ordered), key=lambda peaks: peaks.when, default=None)
    if latest:
        sentences.append(
            "In brackets is how much of what this machine can do the kernels reach: their lower "
            "limit over their time."
        )
        sentences.append(_validity(ordered))
        tables += [_limits_table(ordered), _kinds_table(groups), _peaks_table(latest)]
        if others := {roof.peaks.when for roof in ordered} - {latest.when}:
            sentences.append(
                f"The layers are of {len(others) + 1} runs, each under the peaks that were "
                f"measured in it; those below are of {latest.when}."
            )
    if missing:
        sentences.append(f"Without layers: {_reasons(missing)}.")
        header = ("Network", "Artifact", "Batch", "Why it has no layers")
        lines = tuple((one.network, one.artifact, str(one.batch), one.reason) for one in missing)
        tables.append(Table(header=header, rows=lines, numeric=frozenset({"Batch"})))
    return Section(
        title="What bounds the layers" + (f" ({_threads(latest.threads)})" if latest else ""),
        sentences=tuple(sentences),
        figures=tuple(_figure(group, latest) for group in _pictured(groups) if latest),
        tables=tuple(tables),
        notes=_NOTES,
    )


def _reasons(missing: Sequence[Missing]) -> str:
    """Returns the first network without layers, its reason, and the number of others."""
    first = missing[0]
    text = f"{first.network} {first.artifact}, batch {first.batch} ({first.reason})"
    return f"{text}, and {len(missing) - 1} more" if len(missing) > 1 else text


def _limits_sentence(roofs: Sequence[Roof]) -> str:
    """Returns sentences on the ratio to the limit of ``roofs``, sorted by it, of one setting."""
    near, far = roofs[0], roofs[-1]
    where = f"At {far.times.precision}, batch {far.times.batch}"
    if len(roofs) == 1:
        return (
            f"{where}, a call of {far.times.network} takes {far.ratio:.1f} times its lower limit: "
            f"{bound_shares(far)}. {_excess(far)}"
        )
    return (
        f"{where}, calls of {len(roofs)} networks take {near.ratio:.1f} to {far.ratio:.1f} times "
        f"their lower limit (median {median(roof.ratio for roof in roofs):.1f}). "
        f"{near.times.network} is nearest: {bound_shares(near)}. {far.times.network} is farthest: "
        f"{bound_shares(far)}. {_excess(far)}"
    )


def _excess(roof: Roof) -> str:
    most, *_ = parts = roof.parts()
    share = most.excess / sum(part.excess for part in parts)
    return (
        "The largest part of what its layers take above their bounds, "
        f"{percent(share, decimals=0)}, is in {most.name} layers."
    )


def _validity(roofs: Sequence[Roof]) -> str:
    """Returns a sentence on the kernels that were faster than their (then wrong) bounds."""
    kernels = sum(len(roof.bounds) for roof in roofs)
    broken = [(roof, *pair) for roof in roofs for pair in roof.broken()]
    if not broken:
        return f"None of {kernels:,} kernels was measured faster than its bound."
    roof, layer, bound = max(broken, key=lambda one: one[2].seconds / one[1].seconds)
    return (
        f"{len(broken):,} of {kernels:,} kernels were measured faster than their bounds, which are "
        f"too high there: by at most {bound.seconds / layer.seconds:.2f}x, in {layer.name} of "
        f"{roof.times.network} ({roof.times.precision}, batch {roof.times.batch}, {bound.by})."
    )


def _limits_table(roofs: Sequence[Roof]) -> Table:
    header = (
        "Network", "Precision", "Batch", "ms", "Limit ms", "x limit",
        "Where the rest goes: ms (reached)",
    )  # fmt: skip
    rows = [
        (
            roof.times.network,
            roof.times.precision,
            str(roof.times.batch),
            ms(roof.times.call_seconds),
            ms(roof.limit),
            f"{roof.ratio:.2f}",
            _rest(roof),
        )
        for roof in roofs
    ]
    return Table(header=header, rows=tuple(rows), numeric=frozenset(header[2:-1]))


def _rest(roof: Roof) -> str:
    """Returns the kinds of kernels that take most of the time above the limit, as text."""
    whole = roof.times.call_seconds - roof.limit
    named = [part for part in roof.parts() if part.excess > _NAMED * whole]
    texts = [
        f"{part.name} {ms(part.excess)} ({percent(part.reached, decimals=0)})" for part in named
    ]
    if abs(roof.outside) > _NAMED * whole:
        sign = "-" if roof.outside < 0 else ""
        texts.append(f"outside kernels {sign}{ms(abs(roof.outside))}")
    return ", ".join(texts)


def _kinds_table(groups: Sequence[Sequence[Roof]]) -> Table:
    """Returns a table of how far kinds of kernels are from their bounds, over many networks."""
    header = (
        "Kernels", "Precision", "Batch", "Networks", "Share of time", "Of peak operations",
        "Of their bounds",
    )  # fmt: skip
    rows, sizes = [], []
    for roofs in groups:
        found: dict[str, list[tuple[Part, float]]] = {}
        for roof in roofs:
            for part in roof.parts():
                found.setdefault(part.name, []).append((part, part.seconds / roof.times.seconds))
        ranked = sorted(found.items(), key=lambda item: -sum(share for _, share in item[1]))
        times = roofs[0].times
        for name, parts in ranked:
            rates = [part.compute / part.seconds for part, _ in parts]
            rows.append(
                (
                    name,
                    times.precision,
                    str(times.batch),
                    str(len(parts)),
                    _range([share for _, share in parts]),
                    _range(rates) if any(rates) else "-",
                    _range([part.reached for part, _ in parts]),
                )
            )
        sizes.append(len(ranked))
    return Table(
        header=header, rows=tuple(rows), numeric=frozenset(header[2:]), groups=tuple(sizes)
    )


def _range(fractions: Sequence[float]) -> str:
    """Returns the median with the least and the greatest: ``31 % (24 to 45 %)``."""
    low, middle, high = (
        f"{100 * value:.0f}" for value in (min(fractions), median(fractions), max(fractions))
    )
    return f"{middle} %" if low == high else f"{middle} % ({low} to {high} %)"


def _peaks_table(peaks: Peaks) -> Table:
    rows = [
        (f"{precision} operations (2 x MACs)", f"{rate / 1e9:,.0f} G/s")
        for precision, rate in peaks.flops.items()
    ]
    rows += [
        (f"bytes within {size_name(size)}", f"{rate / 1e9:,.0f} GB/s")
        for size, rate in peaks.bandwidth
    ]
    rows.append(("call of a kernel", f"{peaks.launch * 1e6:.2f} µs"))
    header = (f"Peak of this machine, {_threads(peaks.threads)}", "Measured")
    return Table(header=header, rows=tuple(rows), numeric=frozenset({"Measured"}))


def _pictured(groups: Sequence[Sequence[Roof]]) -> list[Sequence[Roof]]:
    """Returns, for each precision, the networks at the smallest batch size with any MACs."""
    first: dict[str, Sequence[Roof]] = {}
    for group in groups:
        if any(roof.times.macs for roof in group):
            first.setdefault(group[0].times.precision, group)
    return list(first.values())


def _figure(roofs: Sequence[Roof], peaks: Peaks) -> Figure:
    times = roofs[0].times
    return Figure(
        title=f"Roofline at {times.precision}, batch {times.batch}",
        caption=(
            "A mark is all layers of a kind in a network: operations for each byte moved, and the "
            "rate that they reach. The lines are what this machine does at most, as measured: "
            "operations, and bytes from the fastest and from the slowest memory. Both axes are "
            "logarithmic."
        ),
        chart=roofline_chart(roofs, peaks),
    )


def _threads(threads: int) -> str:
    return "1 thread" if threads == 1 else f"{threads} threads"
