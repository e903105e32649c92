"""Tables of a report in the terminal."""

from __future__ import annotations

import rich.table

from core.cli import results
from report.format import MISSING
from report.section import Table


def print_table(table: Table, *, strong: int | None = None) -> None:
    """Prints ``table`` on stdout; the row of number ``strong`` in bold."""
    shown = rich.table.Table(box=None, pad_edge=False)
    for name in table.header:
        shown.add_column(name, justify="right" if name in table.numeric else "left")
    for number, cells in enumerate(table.rows):
        style = "bold" if number == strong else None
        shown.add_row(*(cell.replace(MISSING, "-") for cell in cells), style=style)
    if table.rows:
        results().print(shown)
