"""What all experiments share: their machine, progress bars and pages.

An experiment is a folder with the same parts: ``plan`` (what is measured, and how much),
``record`` (a row, and the file that keeps rows), ``measure`` (measures the rows, interleaved, and
goes on from those of an earlier run), ``sections`` (all that is said of them) and ``command``. A
part of a few lines stands in the file that uses it.
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

_WIDTH = 640  # pixels of a page's pictures


def this_machine() -> machine.Machine:
    """Returns this machine, with the version of whatever a runtime computes with."""
    return machine.this_machine(runtime_packages())


@contextmanager
def progress_bars() -> Iterator[Callable[[str, int], Callable[[], None]]]:
    """Yields a function that starts a bar on stderr and returns what advances it by one step.

    Bars are drawn at each step and only then: a thread that refreshes them would take its time out
    of the samples.
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
    """Prints the tables, then the sentences of ``section`` on stdout."""
    for table in section.tables:
        print_table(table)
    for sentence in section.sentences:
        results().print(sentence)


def write_page(section: Section, page: Path) -> Path:
    """Returns ``page``, a Markdown file that now shows ``section``, its pictures beside it."""
    from report.theme import png, sheet

    lines = [f"# {section.title}", *markdown(section)[1:]]
    for number, figure in enumerate(section.figures):
        picture = page.with_name(f"{page.stem}{f'-{number + 1}' if number else ''}.png")
        drawn = sheet(figure.chart, figure.title, data=figure.data, width=_WIDTH)
        write_whole(picture, png(drawn))
        lines += [f"![{figure.title}]({picture.name})", "", figure.caption, ""]
    lines += [f"- {note}" for note in section.notes]
    return write_whole(page, "\n".join([*lines, ""]).encode())
