"""Reports and their tables in the terminal."""

from __future__ import annotations

import rich.table

from core.cli import results
from report.format import MISSING
from report.section import Report, Table

ROWS = 12  # of a report's table; the page has them all


def show_report(report: Report, *, every: bool = False) -> None:
    """Prints what was found, on stdout: a table, and a sentence each.

    Args:
        report: what was found.
        every: print all rows of the table, and all sections.
    """
    out = results()
    if table := report.terminal or report.lead:
        print_table(table, most=None if every else ROWS)
    sentences = [*report.footnotes, *report.summary]
    for sentence in sentences:
        out.print(sentence)
    for section in report.sections if every else ():
        out.print(f"\n{section.title}")
        for sentence in section.sentences:
            out.print(sentence)
        for table in section.tables:
            print_table(table)


def print_table(table: Table, *, most: int | None = None) -> None:
    """Prints ``table`` on stdout, strong rows in bold; of more than ``most`` rows the first."""
    shown = rich.table.Table(box=None, pad_edge=False)
    for name in table.header:
        shown.add_column(name, justify="right" if name in table.numeric else "left")
    for number, cells in enumerate(table.rows[:most]):
        style = "bold" if number in table.strong else None
        shown.add_row(*(cell.replace(MISSING, "-") for cell in cells), style=style)
    out = results()
    if table.rows:
        out.print(shown)
    if most is not None and (left := len(table.rows) - most) > 0:
        out.print(f"{left} more rows; --all lists them")
