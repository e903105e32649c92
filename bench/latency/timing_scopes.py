"""Latency on a GPU, split into copies, kernel launches and computation."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import geometric_mean
from typing import Any

import altair as alt

from bench.latency.charts import colour
from bench.latency.record import PLACES, Place, Row, Sweep
from report.format import MISSING, ms
from report.section import Figure, Section, Table

_NAMES: dict[Place, str] = {
    "host": "host to host",
    "device": "on the GPU",
    "graph": "as a CUDA graph",
}
_SHAPES = ["circle", "square", "triangle-up"]  # in the order of PLACES
_HEADER = (
    "Network",
    "Precision",
    "Runtime",
    "Batch",
    "Host to host p50 ms",
    "On the GPU p50 ms",
    "As a CUDA graph p50 ms",
    "Why not",
)


def gpu_section(sweep: Sweep) -> Section | None:
    """Returns the latency of each GPU candidate at every place; None without such candidates."""
    rows = [row for row in sweep.measured() if row.device is not None or row.graph is not None]
    if not rows:
        return None
    batches = sorted({row.batch for row in rows})
    return Section(
        title="On the GPU: copies, launches and the work itself",
        sentences=tuple(_sentence(rows, batch) for batch in batches),
        figures=tuple(_figure(rows, batch) for batch in batches),
        tables=(Table(header=_HEADER, rows=_cells(sweep, rows), numeric=frozenset(_HEADER[3:7])),),
        notes=(
            "Host to host is by wall clock, copies both ways and the wait for the GPU included. "
            "On the GPU: pixels and logits stay there, and the time is that between two CUDA "
            "events around one call; while the processor launches kernels more slowly than the GPU "
            "runs them, the GPU waits, and that counts. As a CUDA graph: likewise, but the kernels "
            "were captured once and are launched together. What stays on the GPU is timed only if "
            "its answers are those of the same images from the host, and if no work is left when "
            "the second event has passed. fp32 means fp32: TF32 is off.",
        ),
    )


def _sentence(rows: Iterable[Row], batch: int) -> str:
    """Returns a sentence on the cost of launches and copies at ``batch``."""
    here = [row for row in rows if row.batch == batch]
    parts = []
    if copies := _ratios(here, "host", "device"):
        parts.append(f"host to host takes {_spread(copies)} times what stays on the GPU")
    if launches := _ratios(here, "device", "graph"):
        parts.append(f"launching kernel by kernel takes {_spread(launches)} times a CUDA graph")
    if not parts:
        return f"Batch {batch}: nothing that stays on the GPU was measured."
    return f"Batch {batch}: {', and '.join(parts)}; geometric means."


def _spread(ratios: list[float]) -> str:
    ends = f"{min(ratios):.2f} to {max(ratios):.2f}, {len(ratios)} candidates"
    return f"{geometric_mean(ratios):.2f} ({ends})"


def _ratios(rows: Iterable[Row], slow: Place, fast: Place) -> list[float]:
    return [a.p50 / b.p50 for row in rows if (a := row.at(slow)) and (b := row.at(fast))]


def _cells(sweep: Sweep, rows: list[Row]) -> tuple[tuple[str, ...], ...]:
    order = sweep.networks()
    found = []
    for row in sorted(rows, key=lambda row: (order.index(row.network), row.batch)):
        latencies = [row.at(place) for place in PLACES]
        reasons = dict.fromkeys(r for r in (row.device, row.graph) if isinstance(r, str))
        found.append(
            (
                row.network,
                row.precision,
                str(row.runtime),
                str(row.batch),
                *(ms(one.p50) if one else MISSING for one in latencies),
                "; ".join(reasons),
            )
        )
    return tuple(found)


def _figure(rows: Iterable[Row], batch: int) -> Figure:
    data: list[dict[str, Any]] = [
        {
            "network": row.network,
            "runtime": row.runtime,
            "precision": row.precision,
            "place": _NAMES[place],
            "macs": row.macs / 1e6,
            "p50": found.p50 * 1e3,
        }
        for row in rows
        if row.batch == batch and row.macs
        for place in PLACES
        if (found := row.at(place))
    ]
    log = alt.Scale(type="log", nice=False, padding=12)
    shapes = alt.Scale(domain=[_NAMES[place] for place in PLACES], range=_SHAPES)
    chart = (
        alt.Chart(alt.Data(values=data))
        .mark_point(size=70, filled=True, opacity=0.85)
        .encode(
            x=alt.X("macs:Q", title="MACs per image (M)", scale=log, axis=alt.Axis(format="~s")),
            y=alt.Y("p50:Q", title=f"p50 of a call at batch {batch} (ms)", scale=log),
            color=colour(data),
            shape=alt.Shape("place:N", title=None, scale=shapes),
            tooltip=[f"{name}:N" for name in ("network", "runtime", "precision", "place", "p50")],
        )
        .properties(height=320)
    )
    return Figure(
        title=f"On the GPU, batch {batch}",
        caption="Colour: runtime. Shape: from where to where. Both axes are logarithmic.",
        chart=chart,
    )
