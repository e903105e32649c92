"""The summary of a GPU check: a table for the terminal and a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bench.gpu.steps import Outcome
from core.files import write_whole
from core.machine import Machine
from report.markdown import pipe
from report.section import Table

FILE = "summary.md"
HTML = "report.html"
_HEADER = ("Step", "Result", "Seconds")


def summary_table(outcomes: Sequence[Outcome]) -> Table:
    """Returns a row for each step: its title, its result in one line, and its seconds."""
    return Table(
        header=_HEADER,
        rows=tuple(map(_cells, outcomes)),
        numeric=frozenset({"Seconds"}),
        strong=frozenset(n for n, one in enumerate(outcomes) if one.state != "done"),
    )


def write_summary(outcomes: Sequence[Outcome], folder: Path) -> Path:
    """Returns the page in ``folder``: which GPU, which versions, which date, and each result."""
    machines = list(dict.fromkeys(map(_facts, (one.machine for one in outcomes))))
    gpu = outcomes[-1].machine.gpu or "a GPU"
    lines = [f"# What was measured on {gpu}", ""]
    for number, facts in enumerate(machines, start=1):
        label = f"Machine {number}: " if len(machines) > 1 else ""
        lines += [f"{label}{facts}.", ""]
    header = (*_HEADER, "Of", "Date", *(("Machine",) if len(machines) > 1 else ()))
    rows = []
    for one in outcomes:
        cells = [*_cells(one), f"{one.limit:.0f}", one.when]
        if len(machines) > 1:
            cells.append(str(machines.index(_facts(one.machine)) + 1))
        rows.append(tuple(cells))
    numeric = frozenset({"Seconds", "Of"})
    lines += pipe(Table(header=header, rows=tuple(rows), numeric=numeric))
    lines += [
        "",
        "Seconds: how long the step took; Of: its share of the time. A step that was stopped at "
        "its share keeps the rows that it had found by then. What is not in a file here was not "
        "measured.",
        "",
    ]
    if files := sorted(file.name for file in folder.iterdir() if _is_shown(file)):
        lines += ["Files: " + ", ".join(f"[{name}]({name})" for name in files) + ".", ""]
    return write_whole(folder / FILE, "\n".join(lines).encode())


def _cells(one: Outcome) -> tuple[str, str, str]:
    result = f"failed: {one.result}" if one.state == "failed" else one.result
    return one.title, result, f"{one.seconds:.0f}"


def _facts(machine: Machine) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    gpu = f"{machine.gpu or 'no GPU named'}, driver {machine.driver or 'not named'}"
    return f"{gpu}; {machine.cpu}, {machine.cores} usable cores; {machine.os}; {versions}"


def _is_shown(file: Path) -> bool:
    return file.suffix in (".html", ".jsonl", ".json", ".md", ".png") and file.name != FILE
