"""The page of a paper's study: its section and charts."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import altair as alt

from artifact.runtimes.base import RUNTIMES
from bench.experiment import write_page
from bench.latency.charts import Panel
from bench.latency.charts import colours as runtime_colours
from bench.studies.measure import Study, find_study, run_study
from bench.studies.record import PAPER, Results
from bench.studies.variants import Platform, Variant, bare_runtimes
from report.format import ms, percent
from report.section import Figure, Section, Table

_COLOURS = {PAPER: "#20242b", "MACs": "#b8bfc8"}
_SHAPES = {PAPER: "diamond", "MACs": "M-0.2,-1.2L0.2,-1.2L0.2,1.2L-0.2,1.2Z"}  # a tick
_RUNTIME_SHAPES = ("circle", "square", "triangle-up", "cross", "triangle-down", "stroke")


def run_paper_study(name: str, out: Path, **options: Any) -> Path:
    """Runs a paper's study, or reuses an earlier run; writes its page and returns the page's path.

    Args:
        name: name of the study.
        out: folder of its files.
        options: options of :func:`bench.studies.measure.run_study`.
    """
    found = run_study(name, out, **options)
    return write_page(study_section(find_study(name), found), out / f"study-{name}.md")


def study_section(study: Study, found: Mapping[Platform, Results]) -> Section:
    """Returns the section with the results on each platform and the verdicts on the claims."""
    sentences = [study.question]
    for platform, results in found.items():
        sources = {runtime: runtime for runtime in results.runtimes}
        sources[PAPER] = f"the paper ({study.paper[platform]})"
        sentences += [claim.sentence(results, sources) for claim in study.claims]
        if study.tolerance is not None:
            spread = percent(results.macs_spread())
            sentences.append(f"MACs differ from the group's first variant's by {spread} at most.")
    return Section(
        title=study.title,
        sentences=tuple(sentences),
        figures=tuple(_figure(study, platform, results) for platform, results in found.items()),
        tables=tuple(_table(results) for results in found.values()),
        notes=(
            *(_conditions(platform, results) for platform, results in found.items()),
            *_missing(found),
            *_on_gpu(found),
            "Verdicts of comparisons: in how many the claim holds; p50 of what should be slower "
            "over p50 of what should be faster. Overlapping 95 % intervals are a tie.",
            *_cpu_times(found.values()),
            "x: p50 over that of the group's first variant; from the lower end of one 95 % "
            "interval over the upper end of the other to the reverse. MB: input, weights and "
            "output of each layer, once each, float32.",
            *study.notes,
        ),
    )


def _cpu_times(found: Iterable[Results]) -> list[str]:
    if not any(row.latency.cpu_time for results in found for row in results.rows):
        return []
    return ["Times, ratios and ties of one thread are those of its CPU time."]


def ratio_chart(results: Results) -> Panel:
    """Returns the chart of times and MACs relative to each group's first variant."""
    sources = [*results.runtimes, PAPER, "MACs"]
    points: list[dict[str, Any]] = []
    for group in results.groups.values():
        for variant in group[1:]:
            line = {"variant": f"{variant.group}: {variant.name}"}
            for source in sources[:-1]:
                if ratio := results.ratio(variant, group[0], source):
                    bar = {"low": ratio.low, "high": ratio.high}
                    points.append({**line, "source": source, "x": ratio.value, **bar})
            count = results.macs_ratio(variant, group[0])
            points.append({**line, "source": "MACs", "x": count, "low": count, "high": count})
    shapes = dict(zip(results.runtimes, itertools.cycle(_RUNTIME_SHAPES), strict=False)) | _SHAPES
    used = [name for name in sources if any(point["source"] == name for point in points)]
    y = alt.Y(
        "variant:N",
        title=None,
        sort=list(dict.fromkeys(point["variant"] for point in points)),
        axis=alt.Axis(grid=True, ticks=False, domain=False, labelLimit=300),
    )
    base = alt.Chart(alt.Data(values=points)).encode(
        y=y,
        yOffset=alt.YOffset("source:N", sort=used),
        color=alt.Color("source:N", title=None, scale=colours(used)),
    )
    ends = [point[end] for point in points for end in ("low", "high")]
    wide = max(ends) > 5 * min(ends)
    scale = alt.Scale(type="log", nice=False, padding=12) if wide else alt.Scale(zero=False)
    firsts = {group[0].name for group in results.groups.values() if len(group) > 1}
    measure = firsts.pop() if len(firsts) == 1 else "the group's first variant"
    marks = base.mark_point(size=45, filled=True, opacity=0.9).encode(
        x=alt.X("x:Q", title=f"time or MACs, 1 = {measure}", scale=scale),
        shape=alt.Shape(
            "source:N",
            title=None,
            scale=alt.Scale(domain=used, range=[shapes[name] for name in used]),
        ),
        tooltip=["variant:N", "source:N", "x:Q"],
    )
    intervals = base.mark_rule(strokeWidth=3, opacity=0.4).encode(x="low:Q", x2="high:Q")
    one = alt.Chart(alt.Data(values=[{"x": 1}])).mark_rule(strokeDash=[3, 3]).encode(x="x:Q")
    return alt.layer(one, intervals, marks).properties(height={"step": 26, "for": "position"})


def colours(names: list[str]) -> alt.Scale:
    """Returns the colour scale of the sources ``names``."""
    known = runtime_colours() | _COLOURS
    return alt.Scale(domain=names, range=[known[name] for name in names])


def _figure(study: Study, platform: Platform, results: Results) -> Figure:
    chart = (study.chart or ratio_chart)(results)
    return Figure(
        title=f"{study.title} ({platform})",
        caption=f"Mark: p50; bar: 95 % interval. The paper: {study.paper[platform]}.",
        chart=chart,
    )


def _table(results: Results) -> Table:
    printed = any(variant.printed for variant in results.variants)
    times = any(variant.paper is not None for variant in results.variants)
    header = ["Group", "Variant", "M MACs", "x MACs", "MB", "x MB"]
    header += [f"{name} {unit}" for name in results.runtimes for unit in ("ms", "x")]
    header += ["paper x"] * times + ["The paper prints"] * printed
    rows = []
    for variant in results.variants:
        row, first = results.row(variant), results.row(results.first(variant))
        cells = [variant.group, variant.name]
        cells += [f"{row.macs / 1e6:,.1f}", f"{row.macs / first.macs:.2f}"]
        cells += [f"{row.bytes / 1e6:,.1f}", f"{row.bytes / first.bytes:.2f}"]
        for runtime in results.runtimes:
            cells += _times(results, variant, runtime)
        cells += ["-" if variant.paper is None else f"{variant.paper:.2f}"] * times
        cells += [variant.printed or "-"] * printed
        rows.append(tuple(cells))
    numeric = frozenset(header) - {"Group", "Variant", "The paper prints"}
    return Table(header=tuple(header), rows=tuple(rows), numeric=numeric)


def _times(results: Results, variant: Variant, runtime: str) -> list[str]:
    latency = results.shown(variant, runtime)
    first = results.first(variant)
    ratio = results.ratio(variant, first, runtime)
    assert ratio is not None, "every runtime has every variant"
    cell = "1" if variant is first else f"{ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"
    return [ms(latency.p50), cell]


def _conditions(platform: Platform, results: Results) -> str:
    row = results.rows[0]
    machine = row.machine
    device = machine.gpu if platform == "GPU" else f"{machine.cpu}, {machine.cores} usable cores"
    counts = sorted({r.latency.count for r in results.rows})
    samples = " to ".join(f"{count:,}" for count in (*counts[:1], *counts[1:][-1:]))
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    return (
        f"Measured on {device}, {machine.os}, {row.when}: batch {row.batch}, {row.threads} CPU "
        f"thread{'s' if row.threads > 1 else ''} in a call, random weights, fp32, interleaved in "
        f"{row.plan.rounds} rounds; {samples} samples each. {versions}."
    )


def _missing(found: Mapping[Platform, Results]) -> list[str]:
    return [
        f"{name} was not measured: it is not installed here; {RUNTIMES.find(name).install}."
        for platform, results in found.items()
        for name in bare_runtimes(platform)
        if name not in results.runtimes
    ]


def _on_gpu(found: Mapping[Platform, Results]) -> list[str]:
    if "GPU" not in found:
        return []
    return [
        "On the GPU each network was captured once as a CUDA graph, on images that stay there, and "
        "the time is that between two CUDA events around a replay: launched kernel by kernel, "
        "small layers would take what the processor takes to launch them. TF32 is off."
    ]
