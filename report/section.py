"""A part of a report: sentences, tables and a chart, for the page, the picture and Markdown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table in words.

    Attributes:
        header: names of its columns.
        rows: their cells.
        numeric: names of the columns that are set to the right.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A chart and what is to be seen in it.

    Attributes:
        title: a few words.
        caption: how it is to be read.
        chart: one view of Altair, its data inline, without a width: the page gives it one.
    """

    title: str
    caption: str
    chart: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of a report, all of it computed from what was measured.

    Attributes:
        title: its heading.
        sentences: what was found, a paragraph each.
        figures: what shows it.
        tables: the figures behind it.
        notes: how they came about, for the list at the end of the report.
    """

    title: str
    sentences: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
