"""The step that compares the latency of networks with their roofline limits on this GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from artifact.artifact import ARTIFACTS, Artifact
from artifact.records import Precision
from bench.gpu.check import AGAIN, DATA
from bench.gpu.process import Budget
from bench.latency.record import Place, Row, Sweep, latency, read_sweep
from bench.layers.peaks import Peaks, keep_peaks, measure_peaks
from core.conditions import now
from core.errors import UserError, in_words
from core.record_file import append_row, read_rows
from models.cost import LayerCost, layer_costs
from models.registry import DEFAULT_NETWORKS
from report.format import MISSING, ms
from report.section import Section, Table

FILE = "limits.jsonl"
RUNTIME = "torch-cuda"
BATCH = 128
PRECISION: Precision = "fp16"
PLACE: Place = "graph"
# Kinds of layers that a runtime can fuse with the layer before, without memory traffic.
_FUSED = ("element-wise", "data")


@dataclass(frozen=True, kw_only=True)
class LimitRow:
    """The lower limit of a network's latency, and its measured latency.

    Attributes:
        model: registry name.
        precision: precision of the computation.
        batch: batch size.
        layers: sum of the layers' lower limits in seconds, each with its own memory traffic; None
            without the network's graph.
        fused: the same without element-wise layers and copies.
        measured: p50 in seconds of a CUDA graph, in the fastest runtime; None if not measured.
        runtime: name of the fastest runtime.
        reason: why ``layers`` or ``measured`` is None; None if neither is.
        when: UTC date and time, ISO 8601.
    """

    model: str
    precision: Precision
    batch: int
    layers: float | None = None
    fused: float | None = None
    measured: float | None = None
    runtime: str | None = None
    reason: str | None = None
    when: str


def lower_limit(
    layers: Sequence[LayerCost], peaks: Peaks, *, precision: Precision, batch: int
) -> float:
    """Returns the lower limit of the run time of ``layers`` in seconds, run one after the other.

    The limit of a layer is the larger of two times: its operations at the peak rate of
    ``precision``, and its bytes, each moved once, at the peak bandwidth for that working set.
    """
    total = 0.0
    for layer in layers:
        moved = layer.bytes_moved(precision, batch)
        compute = 2 * layer.macs * batch / peaks.flops[precision]
        total += max(compute, peaks.seconds(moved, within=moved))
    return total


def run(
    folder: Path,
    budget: Budget,
    *,
    names: Sequence[str] = DEFAULT_NETWORKS,
    artifacts: Path = ARTIFACTS,
    batch: int = BATCH,
) -> str:
    """Measures the peaks, writes a row per network into ``folder``; returns both in one line.

    Raises:
        RuntimeUnavailable: there is no GPU.
    """
    peaks = measure_peaks(RUNTIME, 1)
    keep_peaks(peaks, folder)
    print(peaks)
    try:
        sweep = read_sweep(folder)
    except UserError as error:
        sweep, missing = None, str(error)
    else:
        missing = f"no fp16 CUDA graph of it was timed at batch {batch}"
    for name in names:
        row = LimitRow(model=name, precision=PRECISION, batch=batch, when=now())
        append_row(folder / FILE, _limit(row, artifacts, peaks, sweep, missing))
    return in_short(read_rows(folder / FILE, LimitRow, remedy=AGAIN), peaks)


def _limit(
    row: LimitRow, artifacts: Path, peaks: Peaks, sweep: Sweep | None, missing: str
) -> LimitRow:
    import onnx

    try:
        artifact = Artifact.load(artifacts / f"{row.model}-{DATA}" / "onnx-fp32")
        layers = layer_costs(onnx.load(artifact.model_file))
    except Exception as error:  # affects only this network
        return replace(row, reason=in_words(error))
    apart = [layer for layer in layers if layer.kind not in _FUSED]
    seconds, fused = (
        lower_limit(some, peaks, precision=row.precision, batch=row.batch)
        for some in (layers, apart)
    )
    row = replace(row, layers=seconds, fused=fused)
    fastest = _fastest(sweep, row) if sweep else None
    if fastest is None:
        return replace(row, reason=missing)
    return replace(row, measured=latency(fastest).p50, runtime=fastest.runtime)


def _fastest(sweep: Sweep, row: LimitRow) -> Row | None:
    rows = sweep.at(PLACE).measured(f"{row.model}-{DATA}", row.batch)
    return next((one for one in rows if one.precision == row.precision), None)


def limits_section(rows: Sequence[LimitRow], peaks: Peaks | None) -> Section | None:
    """Returns a section with latencies, limits and their ratios; None without peaks or rows."""
    if not rows or peaks is None:
        return None
    header = (
        "Network", "Limit ms", "Fused ms", "Measured p50 ms", "Runtime", "Over limit", "Over fused",
        "Why",
    )  # fmt: skip
    cells = tuple(
        (
            row.model,
            *(MISSING if one is None else ms(one) for one in (row.layers, row.fused, row.measured)),
            row.runtime or "",
            *(_times(row.measured, limit) for limit in (row.layers, row.fused)),
            row.reason or "",
        )
        for row in rows
    )
    sizes = ("Working set MB", "Copied GB/s")
    copies = tuple((f"{s / 1e6:,.0f}", f"{rate / 1e9:,.0f}") for s, rate in peaks.bandwidth)
    where = f"{rows[0].precision}, batch {rows[0].batch}"
    return Section(
        title=f"How far from what the GPU can do ({where})",
        sentences=(f"{in_short(rows, peaks)}.",),
        tables=(
            Table(header=header, rows=cells, numeric=frozenset((*header[1:4], *header[5:7]))),
            Table(header=sizes, rows=copies, numeric=frozenset(sizes)),
        ),
        notes=(
            "Limit: the sum over all layers of operations at the peak or bytes at the most that is "
            "copied within a set of so many, whichever takes longer. Fused: element-wise layers "
            "and copies take nothing. Peaks, by CUDA events around a CUDA graph, are the best of "
            "several shapes and repetitions: products of matrices in torch, on tensor cores in "
            "fp16 and without TF32 in fp32; copies count bytes read and written. Measured: p50 of "
            "a CUDA graph, the fastest runtime.",
        ),
    )


def in_short(rows: Sequence[LimitRow], peaks: Peaks) -> str:
    """Returns the peaks, and the range of the ratios of latency to limit, in one line."""
    flops = ", ".join(f"{name} {rate / 1e12:,.0f} TFLOP/s" for name, rate in peaks.flops.items())
    text = f"{flops}, copies {peaks.bandwidth[-1][1] / 1e9:,.0f} GB/s"
    found = [row for row in rows if row.measured and row.layers]
    if not found:
        reasons = [row.reason for row in rows if row.reason]
        return f"{text}; no network was measured beside its limit" + "".join(
            f" ({reason})" for reason in reasons[:1]
        )
    ratios = [(row.measured or 0.0) / (row.layers or 1.0) for row in found]
    ends = f"{min(ratios):.1f} to {max(ratios):.1f} times"
    return f"{text}; {len(found)} networks take {ends} their limit"


def _times(measured: float | None, limit: float | None) -> str:
    return f"{measured / limit:.2f}" if measured and limit else "-"
