"""Writes the files of a report: HTML page, Markdown and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from core.files import write_whole
from report.html import page
from report.markdown import document
from report.section import Report
from report.theme import png, sheet

_WIDTH = 560  # width of the picture of a section's chart in pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class Files:
    """The paths of the written files; ``png`` is None without charts."""

    html: Path
    png: Path | None
    markdown: Path


def write_report(report: Report, folder: Path) -> Files:
    """Writes the files of ``report`` into ``folder``, each atomically, and returns their paths.

    They are the page, the Markdown, the poster, and a picture of each section's chart.
    """
    picture = folder / f"{report.name}.png"
    files = Files(
        html=folder / f"{report.name}.html",
        png=picture if report.poster else None,
        markdown=folder / f"{report.name}.md",
    )
    # Remove pictures of an earlier report.
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
