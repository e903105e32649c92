"""The files of a report: page, Markdown and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.files import write_whole
from report.html import page
from report.markdown import document
from report.section import Report
from report.theme import png, sheet

_WIDTH = 560  # pixels of a section's chart alone


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """The files that were written; ``png`` is None where there is nothing to draw."""

    html: Path
    png: Path | None
    markdown: Path


def write_report(report: Report, folder: Path) -> Files:
    """Returns the files in ``folder`` that now show ``report``; each appears by rename, whole.

    They are the page, the Markdown, the picture of the first charts and one of each section's.
    """
    picture = folder / f"{report.name}.png"
    files = Files(
        html=folder / f"{report.name}.html",
        png=picture if report.poster else None,
        markdown=folder / f"{report.name}.md",
    )
    # Older pictures would belie the other files.
    for old in (*folder.glob(f"{report.name}-*.png"), *(() if report.poster else (picture,))):
        old.unlink(missing_ok=True)
    for figure in (each for section in report.sections for each in section.figures):
        said = figure.title, [report.subtitle]
        drawn = sheet(figure.chart, *said, data=figure.data, width=_WIDTH)
        write_whole(folder / report.picture(figure), png(drawn))
    write_whole(files.markdown, document(report).encode())
    if report.poster:
        write_whole(picture, png(report.poster))
    write_whole(files.html, page(report).encode())
    return files
