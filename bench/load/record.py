"""The files that a measurement of a server leaves: every turn, and the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.load.served import Served
from bench.load.turns import LoadPlan, Turn, Turns
from core.conditions import Conditions
from core.files import write_whole
from core.machine import Machine
from core.record_file import RecordFile
from report.markdown import markdown
from report.section import Section

SCHEMA = 2
NAME = "load"


@dataclass(frozen=True, kw_only=True)
class LoadHeader:
    """What all turns of a file share: the server, how much was measured, and where."""

    schema: int
    served: Served
    client: str
    plan: LoadPlan
    machine: Machine
    before: Conditions
    after: Conditions


RECORDS = RecordFile(LoadHeader, Turn, schema=SCHEMA)


def write_load(header: LoadHeader, turns: Turns, section: Section, folder: Path) -> Path:
    """Returns ``folder/load.md``; ``load.jsonl`` beside it holds the header and every turn."""
    RECORDS.write(folder / f"{NAME}.jsonl", header, turns.all)
    machine, before = header.machine, header.before
    where = (
        f"Measured on {machine.cpu}, {machine.cores} usable cores, {machine.os}, {before.when}; "
        f"load averages before {_averages(before)}, after {_averages(header.after)}."
    )
    text = [*markdown(section), *(f"- {note}" for note in (where, *section.notes)), ""]
    text[0] = f"# {section.title}"
    return write_whole(folder / f"{NAME}.md", "\n".join(text).encode())


def _averages(state: Conditions) -> str:
    averages = state.load_average
    return "unknown" if averages is None else " ".join(f"{value:.2f}" for value in averages)
