"""A sweep as a report: everything said of it is computed here, once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.latency.charts import datasets, dots, poster, scatter
from bench.latency.correlation import correlation_section, inversion_section
from bench.latency.pareto import pareto_section
from bench.latency.pick import Pick, pick_all
from bench.latency.prose import (
    COLUMNS,
    NUMERIC,
    facts,
    headline,
    measured_cells,
    method,
    picks_table,
    subtitle,
    summary,
    unmeasured,
)
from bench.latency.record import Row, Sweep
from bench.latency.timing_scopes import gpu_section
from bench.layers.explanation import explain
from core.cli import results
from report.section import Figure, Report, Section, Table
from report.terminal import show_report
from report.theme import sheet
from report.write import Files, write_report

NAME = "latency"
_LEGEND = (
    "Mark: p50, and how many times faster than torch eager. Band: its 95 % interval. Line: to p95."
)
_UNMEASURED = ("Network", "Artifact", "Runtime", "Batch", "Why not")
# What a terminal has room for; the report has the rest.
_SHOWN = ("Precision", "Runtime", "Batch", "p50 ms", "p99 ms", "x faster", "Top-1")


def latency_report(sweep: Sweep, explained: Sequence[Section] = ()) -> Report:
    """Returns all that is said of ``sweep``.

    Args:
        sweep: what was measured.
        explained: what explains it; see :func:`explaining_sections`.
    """
    picks = pick_all(sweep)
    batches = [batch for batch in sweep.batches() if sweep.measured(batch=batch)]
    single = len(sweep.networks()) == 1
    title, below = headline(sweep), subtitle(sweep)
    drawn = None
    if sweep.measured():
        data = datasets(sweep, batches)
        drawn = sheet(poster(sweep), title, [below, _LEGEND] if single else [below], data=data)
    missing = unmeasured(sweep)
    return Report(
        name=NAME,
        title=title,
        subtitle=below,
        summary=tuple(summary(sweep, picks)),
        lead=picks_table(sweep, picks),
        terminal=_terminal_table(sweep, picks) if single else None,
        footnotes=_not_measured(missing),
        figures=tuple(_figures(sweep, batches)),
        poster=drawn,
        poster_alt="Latency of every candidate, and against MACs",
        sections=(*explained, *_rows_sections(sweep, picks, missing, folded=bool(explained))),
        facts=facts(sweep),
        method=tuple(method(sweep)),
    )


def explaining_sections(sweep: Sweep, folder: Path) -> list[Section]:
    """Returns what explains ``sweep``, with the layers that ``folder`` holds of its networks."""
    bounded = explain(folder, sweep)
    profiles = {
        (roof.times.network, roof.times.batch): roof.times
        for roof in bounded.roofs
        if roof.times.precision == "fp32"
    }
    parts = (
        pareto_section(sweep),
        gpu_section(sweep),
        correlation_section(sweep),
        inversion_section(sweep, profiles),
    )
    return [*filter(None, parts), *bounded.sections()]


def write_latency(sweep: Sweep, folder: Path, explained: Sequence[Section] = ()) -> Files:
    """Returns the files in ``folder`` that now show ``sweep``, explained by these sections."""
    return write_report(latency_report(sweep, explained), folder)


def _rows_sections(
    sweep: Sweep,
    picks: dict[str, Pick],
    missing: Sequence[tuple[str, ...]],
    *,
    folded: bool,
) -> list[Section]:
    """Returns all rows: those measured, a group per network and batch, and those that were not."""
    groups = [
        rows
        for network in sweep.networks()
        for batch in sweep.batches()
        if (rows := sweep.measured(network, batch))
    ]
    rows = [row for group in groups for row in group]
    sections = []
    if rows:
        table = Table(
            header=COLUMNS,
            rows=tuple(tuple(measured_cells(sweep, row, picks).values()) for row in rows),
            numeric=NUMERIC,
            groups=tuple(map(len, groups)),
            strong=_picked(rows, picks),
        )
        fold = f"All {len(rows)} rows" if folded else ""
        sections.append(Section(title="What was measured", tables=(table,), folded=fold))
    if missing:
        table = Table(header=_UNMEASURED, rows=tuple(missing), numeric=NUMERIC)
        sections.append(Section(title="Not measured", tables=(table,)))
    return sections


def _terminal_table(sweep: Sweep, picks: dict[str, Pick]) -> Table:
    shown = _SHOWN if len(sweep.threads()) == 1 else (*_SHOWN[:3], "Threads", *_SHOWN[3:])
    rows = [row for batch in sweep.batches() for row in sweep.measured(batch=batch)]
    cells = [measured_cells(sweep, row, picks) for row in rows]
    return Table(
        header=shown,
        rows=tuple(tuple(row[name] for name in shown) for row in cells),
        numeric=NUMERIC,
        strong=_picked(rows, picks),
    )


def _picked(rows: Sequence[Row], picks: dict[str, Pick]) -> frozenset[int]:
    """Returns the numbers of the rows that are to be served."""
    return frozenset(
        number for number, row in enumerate(rows) if any(pick.row is row for pick in picks.values())
    )


def _not_measured(missing: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """Returns a line that counts what was not measured, with the first reason; none if nothing."""
    if not missing:
        return ()
    reasons = list(dict.fromkeys(reason for *_, reason in missing))
    more = f", and {len(reasons) - 1} other reasons" if len(reasons) > 1 else ""
    count = sum(batches.count(",") + 1 for *_, batches, _ in missing)
    return (f"{count} more not measured here ({reasons[0]}{more}); --all lists them",)


def _figures(sweep: Sweep, batches: Sequence[int]) -> list[Figure]:
    """Returns the charts that come first, for each batch size."""
    single = len(sweep.networks()) == 1
    figures = []
    if single:
        for batch in batches:
            title = "One image per call" if batch == 1 else f"{batch} images per call"
            data = datasets(sweep, [batch])
            figures.append(
                Figure(title=title, caption=_LEGEND, chart=dots(sweep, batch), data=data)
            )
    stay = "Here all do the same MACs." if single else "Few networks stay on one."
    for batch in batches:
        figures.append(
            Figure(
                title=f"Latency against MACs, batch {batch}",
                caption="Both axes are logarithmic. Along a dashed line the rate is constant: "
                f"half the MACs, half the time. {stay}",
                chart=scatter(sweep, batch),
                data=datasets(sweep, [batch]),
            )
        )
    return figures


def show(sweep: Sweep, folder: Path, *, every: bool = False) -> None:
    """Writes the report and prints what it found and where it is.

    Args:
        sweep: what was measured.
        folder: for the report; it may hold layers that explain ``sweep``.
        every: print all rows and sentences, where a screen has no room for them.
    """
    report = latency_report(sweep, explaining_sections(sweep, folder))
    files = write_report(report, folder)
    show_report(report, every=every)
    results().print(files.html)
