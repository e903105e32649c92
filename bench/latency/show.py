"""A sweep in the terminal, with its report written."""

from __future__ import annotations

from pathlib import Path

from bench.latency.report import explaining_sections, latency_report
from bench.latency.rows import Sweep
from core.cli import results
from report.terminal import show_report
from report.write import write_report


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
