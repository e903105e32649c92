"""The file that keeps what sweeps found.

`latency.jsonl` holds a header (schema, machine, plan, conditions) on its first line and a row on
each other. Rows of earlier runs on the same machine stay in it.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, with_config

from bench.latency.rows import Row, Sweep
from bench.measure.machine import this_machine
from bench.measure.timing import Plan
from core.cli import notes
from core.conditions import Conditions
from core.errors import UserError
from core.machine import Machine
from core.record_file import RecordFile

SCHEMA = 2
FILE = "latency.jsonl"
_REMEDY = "measure again with: make bench ARGS=--fresh"


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True)
class SweepHeader:
    """What all rows of a file share."""

    schema: int
    machine: Machine
    plan: Plan
    before: Conditions
    after: Conditions


RECORDS = RecordFile(SweepHeader, Row, schema=SCHEMA, remedy=_REMEDY)


def write_sweep(sweep: Sweep, folder: Path) -> Path:
    """Returns the file in ``folder`` that now holds ``sweep``; it appears by rename, whole."""
    header = SweepHeader(
        schema=SCHEMA,
        machine=sweep.machine,
        plan=sweep.plan,
        before=sweep.before,
        after=sweep.after,
    )
    return RECORDS.write(folder / FILE, header, sweep.rows)


def read_sweep(path: Path) -> Sweep:
    """Returns the sweep in the file ``path``, or in the folder ``path``.

    Raises:
        UserError: there is none, or a line of it cannot be understood (its number is named).
    """
    path = path if path.suffix == ".jsonl" else path / FILE
    if not path.is_file():
        raise UserError(f"{path}: no such file; measure first with: make bench")
    header, rows = RECORDS.read(path)
    return Sweep(
        machine=header.machine,
        plan=header.plan,
        rows=tuple(rows),
        before=header.before,
        after=header.after,
    )


def earlier_sweep(folder: Path, *, fresh: bool = False) -> Sweep | None:
    """Returns what ``folder`` holds of this machine, or None.

    A file of another machine, or of other versions of a library, is kept under another name, as a
    new one will take its place: ``python -m bench compare`` takes both.

    Args:
        folder: where :func:`write_sweep` writes.
        fresh: whether a file that cannot be understood is kept aside, too, and not an error.

    Raises:
        UserError: a file that cannot be understood.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        sweep = read_sweep(path)
        if sweep.machine.key == this_machine().key:
            return sweep
    except UserError:
        if not fresh:
            raise
    names = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(1))
    aside = path.rename(next(name for name in names if not name.exists()))
    notes().print(f"{path} is not of this machine and these versions: it is {aside.name} now")
    return None
