"""The report of a sweep, with all its sections and charts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from bench.latency.charts import draw
from bench.latency.correlation import cost_sections
from bench.latency.pareto import pareto_section
from bench.latency.pick import pick_all
from bench.latency.prose import in_words
from bench.latency.record import Sweep
from bench.latency.timing_scopes import gpu_section
from bench.layers.explanation import explain
from bench.studies.rewrite_table import known_rewrites
from core.cli import results
from report.section import Report, Section
from report.terminal import show_report
from report.write import Files, write_report


def latency_report(sweep: Sweep, explained: Sequence[Section] = ()) -> Report:
    """Returns the report of ``sweep``.

    Args:
        sweep: the measured sweep.
        explained: further sections, such as :func:`explaining_sections`.
    """
    report = in_words(sweep, pick_all(sweep), folded=bool(explained))
    figures, poster = draw(sweep, report.title, report.subtitle)
    return replace(
        report,
        figures=tuple(figures),
        poster=poster,
        poster_alt="Latency of every candidate, and against MACs",
        sections=(*explained, *report.sections),
    )


def explaining_sections(sweep: Sweep, folder: Path) -> list[Section]:
    """Returns sections that explain ``sweep``, using the layer times recorded in ``folder``."""
    bounded = explain(folder, sweep)
    profiles = {
        (roof.times.network, roof.times.batch): roof.times
        for roof in bounded.roofs
        if roof.times.precision == "fp32"
    }
    parts = (
        pareto_section(sweep),
        gpu_section(sweep),
        *cost_sections(sweep, profiles),
        known_rewrites(folder, sweep.networks(), sweep.machine),
    )
    return [*filter(None, parts), *bounded.sections()]


def write_latency(sweep: Sweep, folder: Path, explained: Sequence[Section] = ()) -> Files:
    """Writes the report of ``sweep`` into ``folder`` and returns its files."""
    return write_report(latency_report(sweep, explained), folder)


def show(sweep: Sweep, folder: Path, *, every: bool = False) -> None:
    """Writes the report, and prints it with the path of its page.

    Args:
        sweep: the measured sweep.
        folder: folder of the report; recorded layer times in it are used.
        every: print all rows and sentences, even if they do not fit a screen.
    """
    report = latency_report(sweep, explaining_sections(sweep, folder))
    files = write_report(report, folder)
    show_report(report, every=every)
    results().print(files.html)
