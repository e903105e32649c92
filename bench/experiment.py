"""Code that all experiments share: machine, progress bars and pages.

An experiment is a folder with the same modules: ``plan`` (what to measure), ``record`` (a row, and
the file that stores rows), ``measure`` (measures rows, interleaved, reusing those of an earlier
run), ``sections`` (the report) and ``command``. A module that would be only a few lines is part of
the one that uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from artifact.runtimes.base import runtime_packages
from core import machine
from core.cli import notes, results
from core.files import write_whole
from report.markdown import markdown
from report.section import Section
from report.terminal import print_table

_WIDTH = 640  # width of a page's pictures in pixels


def this_machine() -> machine.Machine:
    """Returns this machine, with the versions of the runtimes' packages."""
    return machine.this_machine(runtime_packages())


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int], Callable[[], None]]]:
    """Yields a function of (title, steps) that starts a progress bar on stderr.

    It returns a function that advances the bar by one step. Bars are redrawn only then, as a
    refreshing thread would disturb the measurements.
    """
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    )  # fmt: skip
    with Progress(*columns, console=notes(), auto_refresh=False) as progress:

        def start(title: str, steps: int) -> Callable[[], None]:
            task = progress.add_task(title, total=steps)
            return partial(progress.update, task, advance=1, refresh=True)

        yield start


def print_section(section: Section) -> None:
    """Prints the tables and then the sentences of ``section`` on stdout."""
    for table in section.tables:
        print_table(table)
    for sentence in section.sentences:
        results().print(sentence)


def write_page(section: Section, page: Path) -> Path:
    """Writes ``section`` as Markdown to ``page``, with pictures beside it, and returns ``page``."""
    from report.theme import png, sheet

    lines = [f"# {section.title}", *markdown(section)[1:]]
    for number, figure in enumerate(section.figures):
        picture = page.with_name(f"{page.stem}{f'-{number + 1}' if number else ''}.png")
        drawn = sheet(figure.chart, figure.title, data=figure.data, width=_WIDTH)
        write_whole(picture, png(drawn))
        lines += [f"![{figure.title}]({picture.name})", "", figure.caption, ""]
    lines += [f"- {note}" for note in section.notes]
    return write_whole(page, "\n".join([*lines, ""]).encode())
