"""Rows of a sweep, one for each candidate, and the file that stores them.

The first line of `latency.jsonl` is a header (schema, machine, plan, conditions), each other line a
row. Rows of earlier runs on the same machine are kept.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from pydantic import ConfigDict, with_config

from artifact.records import Metrics, Precision, Weights
from artifact.runtimes.base import runs_on_gpu
from bench.experiment import this_machine
from bench.latency.costs import Costs
from bench.measure.spread import FEWEST, Spread
from bench.measure.timing import Latency, Plan, overlap, turn_ratios
from core.cli import by_name, notes
from core.conditions import Conditions
from core.errors import UserError
from core.machine import Machine
from core.names import canonical_name
from core.record_file import RecordFile
from report.format import MISSING, percent

# Where the input and output of a call are. "host": in host memory, timed by wall clock. "device"
# and "graph": in GPU memory, timed by CUDA events; "graph" replays the call as a CUDA graph.
Place = Literal["host", "device", "graph"]
PLACES: tuple[Place, ...] = get_args(Place)
Key = tuple[str, str | None, int, int]  # folder, runtime, batch, threads
SCHEMA = 2
FILE = "latency.jsonl"
FRESH = by_name("bench --fresh", "make bench ARGS=--fresh")


@dataclass(frozen=True, kw_only=True)
class Row:
    """A candidate: an artifact in a runtime at a batch size; its latency, or why it has none.

    Attributes:
        model: registry name of the network.
        data: name of the data set.
        folder: the artifact's folder, relative to the folder of all artifacts.
        format: format of the model file; with ``precision`` the folder's name.
        precision: precision of the graph.
        runtime: name of the runtime; None if the artifact could not be loaded.
        batch: batch size.
        threads: CPU threads inside a call.
        latency: samples from host to host, by wall clock, or None.
        reason: why there is no latency; None if there is one.
        averaged: number of calls that each sample is the mean of, if the tool that timed them
            reports no single calls, as some do on phones; None if a sample is one call.
        device: samples with pixels and logits in GPU memory, by CUDA events; a text says why there
            are none; None for runtimes that do not use a GPU.
        graph: the same, replayed as a CUDA graph.
        costs: costs of the float32 graph; None unless the row is of the onnx-fp32 artifact.
        weights, macs, parameters, size, sha256, metrics, unverified: from the artifact's manifest
            (``size``: bytes of the model files, ``sha256``: digest of the model file); None if it
            could not be loaded, ``metrics`` also if no accuracy was measured.
        machine: key of the machine in the header.
        when: UTC date and time of the start of the run that measured it, ISO 8601. Only rows of
            the same run were interleaved.
    """

    model: str
    data: str
    folder: str
    format: str
    precision: Precision
    runtime: str | None
    batch: int
    threads: int
    latency: Latency | None = None
    reason: str | None = None
    averaged: int | None = None
    device: Latency | str | None = None
    graph: Latency | str | None = None
    weights: Weights | None = None
    costs: Costs | None = None
    macs: int | None = None
    parameters: int | None = None
    size: int | None = None
    sha256: str | None = None
    metrics: Metrics | None = None
    unverified: str | None = None
    machine: str
    when: str

    @property
    def key(self) -> Key:
        """Returns the key that identifies the row: folder, runtime, batch and threads."""
        return self.folder, self.runtime, self.batch, self.threads

    @property
    def network(self) -> str:
        """Returns the name of the folder of the network's artifacts, ``<model>-<data>``."""
        return self.folder.rpartition("/")[0]

    def at(self, place: Place) -> Latency | None:
        """Returns the latency at ``place``, or None."""
        found = self.latency if place == "host" else getattr(self, place)
        return found if isinstance(found, Latency) else None

    def with_latency(self, place: Place, found: Latency | str | None) -> Row:
        """Returns the row with the latency at ``place``, or with a text that says why not."""
        if place == "device":
            return replace(self, device=found)
        if place == "graph":
            return replace(self, graph=found)
        if isinstance(found, str):
            return replace(self, latency=None, reason=found)
        return replace(self, latency=found, reason=None)

    @property
    def one_thread(self) -> bool:
        """Returns whether its calls compute with one thread of a CPU."""
        return self.threads == 1 and self.runtime is not None and not runs_on_gpu(self.runtime)

    @property
    def rate(self) -> float | None:
        """Returns the MACs per second at p50, or None."""
        if self.latency is None or self.macs is None:
            return None
        return self.macs * self.batch / self.latency.p50


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """The measurements of one machine.

    Attributes:
        machine: the machine.
        plan: plan of the last run.
        rows: all candidates, including those of earlier runs.
        before: conditions of the machine at the start of the last run.
        after: conditions at its end.
    """

    machine: Machine
    plan: Plan
    rows: tuple[Row, ...]
    before: Conditions
    after: Conditions

    def only(self, model: str | None = None, data: str | None = None) -> Sweep:
        """Returns the sweep of only this network and data; None for any.

        Raises:
            UserError: no row is left.
        """
        rows = tuple(row for row in self.rows if is_asked(row.network, model, data))
        if self.rows and not rows:
            raise UserError(
                f"nothing of {model or 'any network'} on {data or 'any data'} was measured; there "
                f"is {', '.join(self.networks())}"
            )
        return replace(self, rows=rows)

    def of(self, network: str | None) -> Sweep:
        """Returns the sweep of only the artifacts in this folder; None for all."""
        rows = tuple(row for row in self.rows if network in (None, row.network))
        return replace(self, rows=rows)

    def measured(
        self, network: str | None = None, batch: int | None = None, threads: int | None = None
    ) -> list[Row]:
        """Returns the rows with a latency, the fastest per image first."""
        rows = [
            row
            for row in self.rows
            if row.latency
            and network in (None, row.network)
            and batch in (None, row.batch)
            and threads in (None, row.threads)
        ]
        return sorted(rows, key=lambda row: p50(row) / row.batch)

    def at(self, place: Place) -> Sweep:
        """Returns the sweep with the latency at ``place`` as the latency of each row."""
        return replace(self, rows=tuple(replace(r, latency=r.at(place)) for r in self.rows))

    def networks(self) -> list[str]:
        """Returns the networks of all rows, measured or not, in the order of the rows."""
        return list(dict.fromkeys(row.network for row in self.rows))

    def batches(self) -> list[int]:
        """Returns the batch sizes of all rows, ascending."""
        return sorted({row.batch for row in self.rows})

    def threads(self) -> list[int]:
        """Returns the numbers of threads of all rows, ascending."""
        return sorted({row.threads for row in self.rows})

    def peers(self, row: Row) -> list[Row]:
        """Returns the measured rows of the same network, batch and threads, the fastest first."""
        return self.measured(row.network, row.batch, row.threads)

    def eager(self, row: Row) -> Row | None:
        """Returns the row of torch eager in fp32 among the :meth:`peers` of ``row``, or None.

        It is that of torch on the GPU if the runtime of ``row`` uses the GPU.
        """
        on_gpu = row.runtime is not None and runs_on_gpu(row.runtime)
        eager = ("torch-cuda" if on_gpu else "torch", "fp32")
        peers = self.peers(row)
        return next((peer for peer in peers if (peer.runtime, peer.precision) == eager), None)

    def times_torch(self, row: Row) -> Spread | str:
        """Returns the speedup of ``row`` over torch eager; a text says why it is unknown."""
        eager = self.eager(row)
        if eager is None or row.latency is None:
            return "torch eager was not measured beside it"
        return times(eager, row)

    def tied(self, row: Row) -> list[Row]:
        """Returns the other :meth:`peers` whose interval of p50 overlaps that of ``row``."""
        if row.latency is None:
            return []
        others = self.peers(row)
        return [r for r in others if r is not row and r.latency and overlap(r.latency, row.latency)]


def latency(row: Row) -> Latency:
    """Returns the latency of a measured row."""
    assert row.latency is not None, "only measured rows have a latency"
    return row.latency


def p50(row: Row) -> float:
    """Returns the median latency of a measured row in seconds."""
    return latency(row).p50


def times(over: Row, under: Row) -> Spread | str:
    """Returns the latency of ``over`` divided by that of ``under``, turn by turn.

    A text says why there is no ratio: only rows of the same run are divided, as the speed of a
    machine varies between runs.
    """
    if over.when != under.when:
        return (
            f"{over.runtime} was measured in another run ({over.when} and {under.when}); "
            f"{FRESH} measures both in one"
        )
    ratios = turn_ratios(latency(over), latency(under))
    if len(ratios) < FEWEST:
        return f"it and {over.runtime} took {len(ratios)} turns beside each other, too few to tell"
    return Spread.of(ratios)


def is_asked(network: str, model: str | None, data: str | None) -> bool:
    """Returns whether ``network``, ``<model>-<data>``, matches model and data; None matches any."""
    start = "" if model is None else f"{canonical_name(model)}-"
    end = "" if data is None else f"-{data}"
    return network.startswith(start) and network.endswith(end)


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True)
class SweepHeader:
    """The first line of the file; the attributes are those of :class:`Sweep`."""

    schema: int
    machine: Machine
    plan: Plan
    before: Conditions
    after: Conditions


RECORDS = RecordFile(SweepHeader, Row, schema=SCHEMA, remedy=f"measure again with: {FRESH}")


def write_sweep(sweep: Sweep, path: Path) -> Path:
    """Writes ``sweep`` atomically and returns the path of the file.

    Args:
        sweep: the measured sweep.
        path: the file, which ends in ``.jsonl``, or its folder.
    """
    header = SweepHeader(
        schema=SCHEMA,
        machine=sweep.machine,
        plan=sweep.plan,
        before=sweep.before,
        after=sweep.after,
    )
    path = path if path.suffix == ".jsonl" else path / FILE
    return RECORDS.write(path, header, sweep.rows)


def read_sweep(path: Path) -> Sweep:
    """Reads the sweep in ``path``, a .jsonl file or the folder of ``latency.jsonl``.

    Raises:
        UserError: no such file, or a line cannot be understood (the message has its number).
    """
    path = path if path.suffix == ".jsonl" else path / FILE
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; measure first with: {by_name('bench', 'make bench')}"
        )
    header, rows = RECORDS.read(path)
    return Sweep(
        machine=header.machine,
        plan=header.plan,
        rows=tuple(rows),
        before=header.before,
        after=header.after,
    )


def earlier_sweep(folder: Path, *, fresh: bool = False) -> Sweep | None:
    """Returns the earlier sweep of this machine in ``folder``, or None.

    A file of another machine, or of other library versions, is renamed to make room for a new one;
    ``python -m bench compare`` can compare both.

    Args:
        folder: the folder that :func:`write_sweep` writes to.
        fresh: whether to rename a file that cannot be understood, too, instead of raising.

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
    aside = set_aside(path)
    notes().print(f"{path} is not of this machine and these versions: it is {aside.name} now")
    return None


def set_aside(path: Path) -> Path:
    """Renames a file that a new one will replace, and returns its new path: ``latency-1.jsonl``."""
    names = (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(1))
    return path.rename(next(name for name in names if not name.exists()))


def title(row: Row) -> str:
    """Returns artifact and runtime of a row, such as ``onnx-int8 in ort-cpu``."""
    return f"{row.format}-{row.precision} in {row.runtime}"


def top1(row: Row) -> str:
    """Returns the artifact's measured top-1 and the number of images, as text.

    Of several labels it is the mAP.
    """
    if row.metrics is None:
        return MISSING
    if row.metrics.mean_ap is not None:
        return f"{percent(row.metrics.mean_ap)} mAP of {row.metrics.images:,}"
    return f"{percent(row.metrics.top1)} of {row.metrics.images:,}"


def threads(row: Row) -> str:
    """Returns the number of CPU threads of ``row`` as text, such as ``2 threads``."""
    return f"{row.threads} thread{'s' if row.threads != 1 else ''}"
