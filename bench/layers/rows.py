"""The file that keeps the layers of many networks, as measured on one machine.

`layers.jsonl` holds a header (schema, machine) on its first line, and the layers of an artifact at
a batch size on each other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, with_config

from bench.layers.layers import LayerTimes
from bench.measure.machine import this_machine
from core.machine import Machine
from core.record_file import RecordFile

SCHEMA = 1
FILE = "layers.jsonl"


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True)
class LayersHeader:
    """What all rows of a file share."""

    schema: int
    machine: Machine


RECORDS = RecordFile(LayersHeader, LayerTimes, schema=SCHEMA)


def known_layers(folder: Path) -> list[LayerTimes]:
    """Returns what ``folder`` holds of this machine and these versions; nothing of another.

    Raises:
        UserError: a file that cannot be understood; the line is named.
    """
    path = folder / FILE
    if not path.exists():
        return []
    header, rows = RECORDS.read(path)
    return rows if header.machine.key == this_machine().key else []


def keep_layers(rows: Iterable[LayerTimes], folder: Path) -> Path:
    """Returns the file in ``folder`` that now holds ``rows``, and what it knew besides.

    A file of another machine, or of other versions of a library, is replaced: nothing in it can
    be used here.
    """
    machine = this_machine()
    kept = {row.key: row for row in known_layers(folder)}
    for row in rows:
        assert row.machine == machine.key, "rows of two machines do not mix"
        kept[row.key] = row
    header = LayersHeader(schema=SCHEMA, machine=machine)
    return RECORDS.write(folder / FILE, header, (kept[key] for key in sorted(kept)))
