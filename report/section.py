"""What a report is made of: sections of sentences, charts and tables, all computed once.

The renderers beside this file show a :class:`Report` as a page, as Markdown, as pictures and in the
terminal. None of them computes anything: what two of them say of one quantity is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table in words.

    Attributes:
        header: names of its columns.
        rows: their cells.
        numeric: names of the columns that are set to the right.
        groups: how many rows belong together, one after the other; empty where all do.
        strong: numbers of the rows that stand out, counted from 0.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[str] = frozenset()
    groups: tuple[int, ...] = ()
    strong: frozenset[int] = frozenset()

    def bodies(self) -> Iterator[list[tuple[int, tuple[str, ...]]]]:
        """Yields the rows of each group, with their numbers."""
        start = 0
        for count in self.groups or (len(self.rows),):
            yield list(enumerate(self.rows[start : start + count], start=start))
            start += count


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A chart and what is to be seen in it.

    Attributes:
        title: a few words.
        caption: how it is to be read.
        chart: one view of Altair, without a width: the page gives it one.
        data: what the chart names, if its data are not inline.
    """

    title: str
    caption: str
    chart: Any
    data: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A small image that a page shows among others; elsewhere a table says what it is.

    Attributes:
        jpeg: the bytes of its file.
        title: what it shows, in a few words.
        lines: what is said below it.
    """

    jpeg: bytes
    title: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of a report, all of it computed from what was measured.

    Attributes:
        title: its heading.
        sentences: what was found, a paragraph each.
        figures: what shows it.
        pictures: images that are examples of it.
        tables: the figures behind it.
        notes: how they came about, for the list at the end of the report.
        folded: what a page shows in place of the tables until they are asked for; empty where it
            shows them at once.
    """

    title: str
    sentences: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    pictures: tuple[Picture, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    folded: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """All that is said of a measurement.

    Attributes:
        name: stem of the names of its files.
        title: of what, in a few words.
        subtitle: of which machine, in one line.
        summary: the findings, a sentence each.
        lead: the table that comes first; None where the sentences say it.
        terminal: the table for the terminal.
        footnotes: lines for the terminal below its table.
        figures: the charts that come first.
        poster: Vega-Lite of all those charts on one sheet; None without charts.
        poster_alt: what is to be seen there.
        sections: what explains it.
        facts: (name, value) of the machine.
        method: how the figures came about, a paragraph each.
    """

    name: str
    title: str
    subtitle: str
    summary: tuple[str, ...]
    lead: Table | None = None
    terminal: Table | None = None
    footnotes: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    poster: Mapping[str, Any] | None = None
    poster_alt: str = ""
    sections: tuple[Section, ...] = ()
    facts: Sequence[tuple[str, str]] = ()
    method: tuple[str, ...] = ()

    @property
    def notes(self) -> list[str]:
        """Returns how all figures came about: those of the report, then of each section."""
        return [*self.method, *(note for section in self.sections for note in section.notes)]

    def picture(self, figure: Figure) -> str:
        """Returns the name of the file of a section's chart."""
        words = "".join(c if c.isascii() and c.isalnum() else " " for c in figure.title.lower())
        return f"{self.name}-{'-'.join(words.split())}.png"
