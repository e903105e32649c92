"""A sweep in the terminal, with its report written."""

from __future__ import annotations

from pathlib import Path

from rich.table import Table

from bench.latency.correlation import correlation_section
from bench.latency.inversions import inversion_section
from bench.latency.pareto_section import pareto_section
from bench.latency.pick import Pick, pick_all
from bench.latency.prose import picks_table, summary
from bench.latency.report import write_report
from bench.latency.rows import Sweep
from bench.latency.table import COLUMNS, NUMERIC, measured_cells, unmeasured
from bench.latency.timing_scopes import gpu_section
from bench.layers.explanation import explain
from core.cli import results
from report.format import MISSING
from report.section import Section
from report.terminal import print_table

# What a terminal has room for; the report has the rest.
_SHOWN = tuple(n for n in COLUMNS if n not in ("Network", "95 % interval", "File MB", "Notes"))


def show(sweep: Sweep, folder: Path) -> None:
    """Writes the report and prints the rows, the picks and where the report is."""
    sections = _sections(sweep, folder)
    report = write_report(sweep, folder, sections)
    picks = pick_all(sweep)
    out = results()
    if served := picks_table(sweep, picks):
        print_table(served)
    else:
        _show_network(sweep, picks)
    lacking: dict[tuple[str, str], list[str]] = {}
    for network, artifact, _, _, reason in unmeasured(sweep):
        lacking.setdefault((reason, artifact), []).append(network)
    for (reason, artifact), networks in lacking.items():
        count = f"{networks[0]}" if len(networks) == 1 else f"{len(networks)} networks"
        out.print(f"not measured: {count}, {artifact}: {reason}")
    for sentence in (*summary(sweep, picks), *(s for part in sections for s in part.sentences)):
        out.print(sentence)
    out.print(report.html)


def _sections(sweep: Sweep, folder: Path) -> list[Section]:
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


def _show_network(sweep: Sweep, picks: dict[str, Pick]) -> None:
    """Prints all measured rows."""
    table = Table(box=None, pad_edge=False)
    for name in _SHOWN:
        table.add_column(name, justify="right" if name in NUMERIC else "left", no_wrap=True)
    for batch in sweep.batches():
        for row in sweep.measured(batch=batch):
            cells = measured_cells(sweep, row, picks)
            served = any(best.row is row for best in picks.values())
            table.add_row(
                *(cells[name].replace(MISSING, "-") for name in _SHOWN),
                style="bold" if served else None,
            )
    if table.row_count:
        results().print(table)
