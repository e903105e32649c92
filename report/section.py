"""The parts of a report: sections with sentences, charts and tables.

The renderers in this package show a :class:`Report` as an HTML page, as Markdown, as pictures and
in the terminal. They compute nothing, so all of them show the same figures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A table whose cells are plain text.

    Attributes:
        header: names of the columns.
        rows: cells of each row.
        numeric: names of the right-aligned columns.
        groups: number of rows in each group of successive rows; empty for a single group.
        strong: indices of the highlighted rows, from 0.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: frozenset[str] = frozenset()
    groups: tuple[int, ...] = ()
    strong: frozenset[int] = frozenset()

    def bodies(self) -> Iterator[list[tuple[int, tuple[str, ...]]]]:
        """Yields the (index, row) pairs of each group."""
        start = 0
        for count in self.groups or (len(self.rows),):
            yield list(enumerate(self.rows[start : start + count], start=start))
            start += count


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """A chart with its caption.

    Attributes:
        title: title of the chart.
        caption: how to read the chart.
        chart: a single Altair view without a width, which the page sets.
        data: the chart's named data sets, if its data are not inline.
    """

    title: str
    caption: str
    chart: Any
    data: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """A small image in a gallery of the HTML page; other formats show a table instead.

    Attributes:
        jpeg: bytes of the JPEG file.
        title: title of the image.
        lines: lines of text below it.
    """

    jpeg: bytes
    title: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """A part of a report.

    Attributes:
        title: heading.
        sentences: the findings, a paragraph each.
        figures: charts.
        pictures: example images.
        tables: tables.
        notes: how it was measured, for the list at the end of the report.
        folded: label of the collapsed tables on the HTML page; empty to show them expanded.
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
    """A report on a measurement.

    Attributes:
        name: stem of the file names.
        title: title of the report.
        subtitle: the line below the title, such as the machine.
        summary: the findings, a sentence each.
        lead: the first table; None if the summary suffices.
        terminal: the table for the terminal; None for ``lead``.
        footnotes: lines below the table in the terminal.
        figures: the first charts.
        poster: Vega-Lite specification of all ``figures`` on one sheet; None without charts.
        poster_alt: alternative text of the poster.
        sections: further sections.
        facts: (name, value) pairs on the machine.
        method: how it was measured, a paragraph each.
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
        """Returns the paragraphs of ``method``, then the notes of each section."""
        return [*self.method, *(note for section in self.sections for note in section.notes)]

    def picture(self, figure: Figure) -> str:
        """Returns the file name of the PNG of a section's chart."""
        words = "".join(c if c.isascii() and c.isalnum() else " " for c in figure.title.lower())
        return f"{self.name}-{'-'.join(words.split())}.png"
