"""Prints reports and tables in the terminal."""

from __future__ import annotations

import rich.table

from core.cli import results
from report.format import MISSING
from report.section import Report, Table

ROWS = 12  # most rows of a report's table; the page has all


def show_report(report: Report, *, every: bool = False) -> None:
    """Prints the table and the sentences of ``report`` on stdout.

    Args:
        report: the report.
        every: whether to print all rows of the table, and all sections but what that table says.
    """
    out = results()
    first = report.terminal or report.lead
    if first is not None:
        print_table(first, most=None if every else ROWS)
    sentences = [*report.footnotes, *report.summary]
    for sentence in sentences:
        out.print(sentence)
    for section in report.sections if every else ():
        tables = [table for table in section.tables if table != first]
        if not (tables or section.sentences) and first in section.tables:
            continue
        out.print(f"\n{section.title}")
        for sentence in section.sentences:
            out.print(sentence)
        for table in tables:
            print_table(table)


def print_table(table: Table, *, most: int | None = None) -> None:
    """Prints ``table`` on stdout, at most the first ``most`` rows, strong rows in bold."""
    shown = rich.table.Table(box=None, pad_edge=False)
    # Columns without any value are left out, and the first column is never truncated.
    kept = [n for n in range(len(table.header)) if {row[n] for row in table.rows} - {"", MISSING}]
    for n in kept:
        name = table.header[n]
        shown.add_column(
            name, justify="right" if name in table.numeric else "left", no_wrap=n == kept[0]
        )
        if n == kept[0]:
            shown.columns[-1].min_width = max(len(row[n]) for row in table.rows[:most])
    for number, cells in enumerate(table.rows[:most]):
        style = "bold" if number in table.strong else None
        shown.add_row(*(cells[n].replace(MISSING, "-") for n in kept), style=style)
    out = results()
    if table.rows:
        out.print(shown)
    if most is not None and (left := len(table.rows) - most) > 0:
        out.print(f"{left} more rows; --all lists them")
