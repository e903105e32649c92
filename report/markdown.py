"""Renders Markdown: escaped text, tables, and the sections of a report."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from report.format import one_line
from report.section import Report, Section, Table

# Special characters of GitHub's Markdown; an underscore within a word is not special.
_SPECIAL = re.compile(r"([\\`*\[\]<>|~$&#])|(?<![^\W_])(_)|(_)(?![^\W_])")


def escape(text: str) -> str:
    """Escapes ``text`` as one line of Markdown, for a sentence or a table cell."""
    return _SPECIAL.sub(r"\\\g<0>", one_line(text))


def fenced(text: str) -> list[str]:
    """Returns the lines of a fenced ``sh`` block; its fence is longer than any in ``text``."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}sh", *text.splitlines(), fence]


def table(
    header: Sequence[str], rows: Iterable[Sequence[str]], numeric: Collection[str] = ()
) -> list[str]:
    """Returns the lines of a Markdown table; columns named in ``numeric`` are right-aligned.

    Cells are Markdown: text from outside must be escaped with :func:`escape`.
    """
    rule = ["---:" if name in numeric else "---" for name in header]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]


def pipe(content: Table) -> list[str]:
    """Returns the Markdown lines of a report's table."""
    rows = [[_text(cell).replace("|", "\\|") for cell in cells] for cells in content.rows]
    return table(content.header, rows, content.numeric)


def _text(text: str) -> str:
    """Returns ``text`` on one line, with ``<`` escaped so that it cannot be HTML."""
    return one_line(text).replace("<", "\\<")


def plain(value: Any) -> str:
    """Returns a field of a recipe as Markdown: text unchanged, other values as JSON."""
    return escape(value if isinstance(value, str) else json.dumps(value, default=str))


def document(report: Report) -> str:
    """Returns ``report`` as the text of a Markdown file, with links to pictures of its charts."""
    summary = "\n\n".join(map(_text, report.summary))
    lines = [f"# {_text(report.title)}", "", _text(report.subtitle), "", summary, ""]
    if report.lead:
        lines += [*pipe(report.lead), ""]
    if report.poster:
        lines += [f"![{report.poster_alt}]({report.name}.png)", ""]
    for section in report.sections:
        lines += markdown(section)
        lines += [f"![{each.title}]({report.picture(each)})\n" for each in section.figures]
    if report.facts:
        facts = Table(header=("Fact", "Value"), rows=tuple(report.facts))
        lines += ["## Machine", "", *pipe(facts), ""]
    lines += ["## How it was measured", "", *(f"- {line}" for line in report.notes), ""]
    return "\n".join(lines)


def markdown(section: Section) -> list[str]:
    """Returns the Markdown lines of ``section`` without its charts."""
    lines = [f"## {_text(section.title)}", ""]
    for sentence in section.sentences:
        lines += [_text(sentence), ""]
    for table in section.tables:
        lines += [*pipe(table), ""]
    return lines
