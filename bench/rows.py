"""What a sweep found: one row per candidate, and the file that keeps them. No torch here.

`latency.jsonl` holds a header (schema, machine, plan) on its first line and a row on each other.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from bench.timing import Latency, Plan, overlap
from export.records import Format, Metrics, Precision, Weights
from models.errors import UserError
from models.files import write_whole
from models.machine import Machine

T = TypeVar("T")

SCHEMA = 1
FILE = "latency.jsonl"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One candidate: an artifact in a runtime at a batch size; its latency, or why there is none.

    Attributes:
        model: registry name of the network.
        data: name of the data it answers for.
        folder: the artifact's folder, under the folder of all artifacts.
        format: what kind of model file; with ``precision``, the folder's name.
        precision: property of the graph.
        runtime: what executed it; None where the artifact itself could not be read.
        batch: images per call.
        threads: CPU threads inside one call.
        latency: every sample, or None.
        reason: why there is no latency; None where there is one.
        weights, macs, parameters, size, sha256, metrics, unverified: the artifact's own words
            (``size``: bytes of the model file, ``sha256``: its digest); None where it could not
            be read, and ``metrics`` also where no accuracy was measured.
        machine: key of the machine in the header.
        when: UTC date and time, ISO 8601.
    """

    model: str
    data: str
    folder: str
    format: Format
    precision: Precision
    runtime: str | None
    batch: int
    threads: int
    latency: Latency | None = None
    reason: str | None = None
    weights: Weights | None = None
    macs: int | None = None
    parameters: int | None = None
    size: int | None = None
    sha256: str | None = None
    metrics: Metrics | None = None
    unverified: str | None = None
    machine: str
    when: str

    @property
    def network(self) -> str:
        """Returns the folder of the network's artifacts: ``<model>-<data>``."""
        return self.folder.rpartition("/")[0]

    @property
    def rate(self) -> float | None:
        """Returns the MACs per second that were reached at p50, or None."""
        if self.latency is None or self.macs is None:
            return None
        return self.macs * self.batch / self.latency.p50


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True)
class Header:
    """What all rows of a file share."""

    schema: int
    machine: Machine
    plan: Plan


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """All rows of one run, the machine they were measured on and how much was measured."""

    machine: Machine
    plan: Plan
    rows: tuple[Row, ...]

    def measured(self, network: str | None = None, batch: int | None = None) -> list[Row]:
        """Returns the rows with a latency, the fastest per image first."""
        rows = [
            row
            for row in self.rows
            if row.latency and network in (None, row.network) and batch in (None, row.batch)
        ]
        return sorted(rows, key=lambda row: p50(row) / row.batch)

    def networks(self) -> list[str]:
        """Returns the networks of all rows, measured or not, in the order of the rows."""
        return list(dict.fromkeys(row.network for row in self.rows))

    def batches(self) -> list[int]:
        """Returns the batch sizes of all rows, ascending."""
        return sorted({row.batch for row in self.rows})

    def times_torch(self, row: Row) -> float | None:
        """Returns how many times faster than torch eager ``row`` is, at its batch size, or None."""
        eager = [r for r in self.measured(row.network, row.batch) if r.runtime == "torch"]
        return p50(eager[0]) / p50(row) if eager and row.latency else None

    def tied(self, row: Row) -> list[Row]:
        """Returns the other rows of its network and batch size that ``row`` cannot be told from."""
        if row.latency is None:
            return []
        others = self.measured(row.network, row.batch)
        return [r for r in others if r is not row and r.latency and overlap(r.latency, row.latency)]


def p50(row: Row) -> float:
    """Returns the median latency, in seconds, of a row that was measured."""
    assert row.latency is not None, "only measured rows have a median"
    return row.latency.p50


_HEADER = TypeAdapter(Header)
_ROW = TypeAdapter(Row)


def write_sweep(sweep: Sweep, folder: Path) -> Path:
    """Returns the file in ``folder`` that now holds ``sweep``; it appears by rename, whole."""
    header = Header(schema=SCHEMA, machine=sweep.machine, plan=sweep.plan)
    lines = (_HEADER.dump_json(header), *map(_ROW.dump_json, sweep.rows))
    return write_whole(folder / FILE, b"".join(line + b"\n" for line in lines))


def read_sweep(folder: Path) -> Sweep:
    """Returns the sweep that ``folder`` holds.

    Raises:
        UserError: there is none, or a line of it cannot be understood (its number is named).
    """
    path = folder / FILE
    if not path.is_file():
        raise UserError(f"{path}: no such file; measure first with: make bench")
    lines = path.read_bytes().splitlines()
    try:
        schema = json.loads(lines[0])["schema"] if lines else None
    except (ValueError, TypeError, KeyError):
        schema = None
    if schema != SCHEMA:
        raise UserError(
            f"{path}: line 1 is no header of schema {SCHEMA} (found {schema!r}); "
            "measure again with: make bench"
        )
    header = _parse(_HEADER, path, 1, lines[0])
    rows = tuple(_parse(_ROW, path, number, line) for number, line in enumerate(lines[1:], start=2))
    return Sweep(machine=header.machine, plan=header.plan, rows=rows)


def _parse(adapter: TypeAdapter[T], path: Path, number: int, line: bytes) -> T:
    try:
        return adapter.validate_json(line)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{path}: line {number}: {where}: {first['msg']}; measure again with: make bench"
        ) from None
