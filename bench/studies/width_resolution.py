"""MobileNetV1's two multipliers: ``python -m bench study width_resolution``.

MobileNets: https://arxiv.org/abs/1704.04861 (Sections 3.3 and 3.4, Tables 6 and 7)
ShuffleNet V2: https://arxiv.org/abs/1807.11164 (Table 8: the speeds of MobileNetV1's widths)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import altair as alt

from bench.latency.charts import Panel
from bench.measure.ratio import Ratio
from bench.measure.timing import decisive
from bench.studies.measure import Study
from bench.studies.record import Results
from bench.studies.sections import colours
from bench.studies.variants import Platform, Variant
from bench.studies.verdict import Claim, Verdict, below
from models.mobilenet_v1 import MobileNetV1

WIDTH, RESOLUTION = "width", "resolution"
# alpha -> M MACs, top-1 % (Table 6)
WIDTHS = {1.0: (569, 70.6), 0.75: (325, 68.4), 0.5: (149, 63.7), 0.25: (41, 50.6)}
# pixels -> M MACs, top-1 % (Table 7)
SIDES = {224: (569, 70.6), 192: (418, 69.1), 160: (290, 67.2), 128: (186, 64.4)}
# alpha -> GPU batches/s at batch 8, ARM images/s (ShuffleNetV2, Table 8)
SPEEDS: dict[Platform, dict[float, float]] = {
    "GPU": {1.0: 247, 0.75: 314, 0.5: 382, 0.25: 502},
    "CPU": {1.0: 6.5, 0.75: 10.6, 0.5: 16.5, 0.25: 36.4},
}


def variants(platform: Platform) -> list[Variant]:
    """Returns the widths at 224 pixels and the resolutions at width 1."""
    speeds = SPEEDS[platform]
    widths = [
        Variant(
            group=WIDTH,
            name=f"{width:g}",
            build=partial(MobileNetV1, width),
            shape=(3, 224, 224),
            paper=speeds[1.0] / speeds[width],
            printed=f"{macs} M MACs, {top1} % top-1",
        )
        for width, (macs, top1) in WIDTHS.items()
    ]
    return widths + [
        Variant(
            group=RESOLUTION,
            name=f"{side}",
            build=MobileNetV1,
            shape=(3, side, side),
            printed=f"{macs} M MACs, {top1} % top-1",
        )
        for side, (macs, top1) in SIDES.items()
    ]


def exponent(results: Results, group: str, source: str) -> Ratio | None:
    """Returns e of latency ~ MACs^e, by least squares on logarithms; None if not printed.

    The interval is conservative: for each end, the ends of the latencies' intervals are chosen that
    change the slope most.
    """
    latencies = [results.latency(variant, source) for variant in results.groups[group]]
    found = decisive(latency for latency in latencies if latency is not None)
    if len(found) < len(latencies):
        return None
    logs = [math.log(results.row(variant).macs) for variant in results.groups[group]]
    mean = sum(logs) / len(logs)
    scale = sum((x - mean) ** 2 for x in logs)
    weights = [(x - mean) / scale for x in logs]

    def slope(pick: Callable[[float, Sequence[float]], float]) -> float:
        ends = ((weight, latency.interval) for weight, latency in zip(weights, found, strict=True))
        return sum(weight * math.log(pick(weight, interval)) for weight, interval in ends)

    middle = sum(w * math.log(latency.p50) for w, latency in zip(weights, found, strict=True))
    return Ratio(
        middle,
        slope(lambda weight, interval: interval[0] if weight > 0 else interval[1]),
        slope(lambda weight, interval: interval[1] if weight > 0 else interval[0]),
    )


def _judge(group: str) -> Callable[[Results, str], Verdict | None]:
    def judge(results: Results, source: str) -> Verdict | None:
        found = exponent(results, group, source)
        if found is None:
            return None
        # Less than 1: half the MACs take more than half the time.
        opposite = {"holds": "does not hold", "does not hold": "holds", "a tie": "a tie"}
        interval = "" if found.low == found.high else f", {found.low:.2f} to {found.high:.2f}"
        return Verdict(opposite[below(found, 1.0)], f"exponent {found.value:.2f}{interval}")

    return judge


def chart(results: Results) -> Panel:
    """Returns the chart of latency against MACs on log scales, with a thin line for e = 1."""
    points: list[dict[str, Any]] = [
        {
            "source": runtime,
            "multiplier": variant.group,
            "name": variant.name,
            "macs": results.row(variant).macs / 1e6,
            "p50": latency.p50 * 1e3,
            "low": latency.interval[0] * 1e3,
            "high": latency.interval[1] * 1e3,
        }
        for variant in results.variants
        for runtime in results.runtimes
        for latency in [results.shown(variant, runtime)]
    ]
    ends = [  # end points of the lines of e = 1, which start at the unscaled network
        {"source": runtime, "macs": count, "p50": top["p50"] * count / top["macs"]}
        for runtime in results.runtimes
        for top in [next(point for point in points if point["source"] == runtime)]
        for count in (top["macs"], min(point["macs"] for point in points))
    ]
    log = alt.Scale(type="log", nice=False, padding=15)
    base = alt.Chart(alt.Data(values=points)).encode(
        x=alt.X("macs:Q", title="MACs per image (M)", scale=log, axis=alt.Axis(grid=False)),
        color=alt.Color("source:N", title=None, scale=colours(results.runtimes)),
        tooltip=["source:N", "multiplier:N", "name:N", "macs:Q", "p50:Q"],
    )
    y = alt.Y("p50:Q", title="latency per call (ms)", scale=log, axis=alt.Axis(grid=False))
    lines = base.mark_line(opacity=0.6).encode(
        y=y, strokeDash=alt.StrokeDash("multiplier:N", legend=None)
    )
    marks = base.mark_point(size=60, filled=True, opacity=1).encode(
        y=y, shape=alt.Shape("multiplier:N", title=None)
    )
    intervals = base.mark_rule(strokeWidth=4, opacity=0.35).encode(y="low:Q", y2="high:Q")
    proportional = (
        alt.Chart(alt.Data(values=ends))
        .mark_line(strokeWidth=1, strokeDash=[2, 3], opacity=0.7)
        .encode(x="macs:Q", y="p50:Q", color="source:N")
    )
    return alt.layer(proportional, lines, intervals, marks).properties(height=380)


STUDY = Study(
    title="MobileNetV1's multipliers: does latency fall as MACs do?",
    question="Width and resolution multipliers cut MACs about quadratically (arXiv 1704.04861, "
    "Sections 3.3 and 3.4). Latency ~ MACs^e: with e = 1 it falls as MACs do, below 1 more slowly.",
    paper={
        "CPU": "arXiv 1807.11164, Table 8: Snapdragon 810, one thread, batch 1",
        "GPU": "arXiv 1807.11164, Table 8: GTX 1080Ti, batch 8",
    },
    variants=variants,
    claims=(
        Claim("In proportion, narrower networks save at least as much time as MACs", _judge(WIDTH)),
        Claim(
            "In proportion, smaller images save at least as much time as MACs", _judge(RESOLUTION)
        ),
    ),
    notes=(
        "Thin lines in the picture: e = 1.",
        "e: least squares on logarithms over the four networks of a multiplier; its interval "
        "takes the ends of their intervals that move it furthest. Width 1 and resolution 224 are "
        "one network, measured twice.",
    ),
    chart=chart,
)
