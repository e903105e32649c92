"""The section of a report on how far networks are from their roofline."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from statistics import median

from bench.layers.agreement import AGREES
from bench.layers.layer_report import bound_shares
from bench.layers.peaks import Peaks
from bench.layers.roofline import LIMITS, Roof
from bench.layers.roofline_chart import roofline_chart, size_name
from bench.layers.sweep import Missing
from models.cost import Kind
from report.format import ms, percent
from report.section import Figure, Section, Table

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
    "The time of a kernel is the mean of the middle half of its runs in ONNX Runtime's profile, "
    "without what the profiler itself takes, which is measured on such chains; it is never "
    "less than the call of a kernel. Profiled calls take turns with calls without the profiler, on "
    f"the golden images of each artifact: where the two, or these and the call that the table of "
    f"latencies shows, are more than {percent(AGREES, decimals=0)} apart, the layers explain "
    "nothing and are left out. What is left shows the p50 of that table.",
)


def roofline_section(roofs: Sequence[Roof], missing: Sequence[Missing] = ()) -> Section:
    """Returns what bounds the networks, how far each is from its limit, and what is missing."""
    ordered = sorted(roofs, key=lambda roof: (*roof.setting, roof.ratio))
    groups = [list(group) for _, group in groupby(ordered, key=lambda roof: roof.setting)]
    sentences = [_sentence(group) for group in groups]
    tables = []
    latest = max((roof.peaks for roof in ordered), key=lambda peaks: peaks.when, default=None)
    if latest:
        sentences.append(_validity(ordered))
        tables += [_table(ordered), _peaks_table(latest)]
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
    """Returns how many have no layers, and why not the first of them."""
    first = missing[0]
    text = f"{first.network} {first.artifact}, batch {first.batch} ({first.reason})"
    return f"{text}, and {len(missing) - 1} more" if len(missing) > 1 else text


def _sentence(roofs: Sequence[Roof]) -> str:
    """Returns how far the networks of a setting are from their limits, the nearest first."""
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
    kind, share = most_excess(roof)
    return (
        f"Most of what its layers take above their bounds, {percent(share, decimals=0)}, is in "
        f"{kind} layers."
    )


def most_excess(roof: Roof) -> tuple[Kind, float]:
    """Returns the kind of layers with most of the time above the bounds, and its share of it."""
    excess = roof.excess()
    kind = max(excess, key=lambda one: excess[one])
    return kind, excess[kind] / sum(excess.values())


def _validity(roofs: Sequence[Roof]) -> str:
    """Returns how many kernels were faster than their bounds: each shows a bound to be wrong."""
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


def _table(roofs: Sequence[Roof]) -> Table:
    header = (
        "Network", "Precision", "Batch", "p50 ms", "Limit ms", "x limit",
        *(f"{limit}-bound" for limit in LIMITS), "Kernels", "Calls", "Most above its bound",
    )  # fmt: skip
    rows = []
    for roof in roofs:
        kind, share = most_excess(roof)
        rows.append(
            (
                roof.times.network,
                roof.times.precision,
                str(roof.times.batch),
                ms(roof.times.call.p50),
                ms(roof.limit),
                f"{roof.ratio:.1f}",
                *(percent(value, decimals=0) for value in roof.shares().values()),
                str(len(roof.bounds)),
                str(roof.times.call.count),
                f"{kind} ({percent(share, decimals=0)})",
            )
        )
    return Table(header=header, rows=tuple(rows), numeric=frozenset(header[2:-1]))


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
    """Returns, for each precision, the networks at the smallest batch; some must multiply."""
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
