"""Rows of a sweep, one for each candidate, and the file that keeps them.

`latency.jsonl` holds a header (schema, machine, plan, conditions) on its first line and a row on
each other. Rows of earlier runs on the same machine stay in it.
"""

from __future__ import annotations

import itertools
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from pydantic import ConfigDict, with_config

from artifact.artifact import Artifact
from artifact.records import Metrics, Precision, Weights
from artifact.runtimes.base import runs_on_gpu
from bench.experiment import this_machine
from bench.measure.spread import FEWEST, Spread
from bench.measure.timing import Latency, Plan, overlap, turn_ratios
from core.cli import notes
from core.conditions import Conditions
from core.errors import UserError
from core.machine import Machine
from core.names import canonical_name
from core.record_file import RecordFile
from models.cost import Kind, layer_costs, sum_costs
from report.format import MISSING, percent

# Where a call begins and ends: in the host's memory, timed by wall clock; or, pixels and logits
# staying on a GPU, between two CUDA events, launched kernel by kernel or replayed as a CUDA graph.
Place = Literal["host", "device", "graph"]
PLACES: tuple[Place, ...] = get_args(Place)
Key = tuple[str, str | None, int, int]  # folder, runtime, batch, threads
SCHEMA = 2
FILE = "latency.jsonl"
_REMEDY = "measure again with: make bench ARGS=--fresh"


@dataclass(frozen=True, kw_only=True)
class Costs:
    """The costs of a network and its float32 graph, for one image.

    Attributes:
        macs: multiply-accumulates.
        parameters: elements of the torch network's weights and biases.
        activations: elements of the outputs of convolutions and matrix products.
        bytes_moved: input, weights and output of each layer, as if none was fused.
        kernels: layers that compute or move something.
        depthwise: fraction of ``macs`` in depthwise convolutions.
        pointwise: likewise, in 1x1 convolutions.
        grouped: likewise, in other convolutions with groups.
    """

    macs: int
    parameters: int
    activations: int
    bytes_moved: int
    kernels: int
    depthwise: float
    pointwise: float
    grouped: float


def count_costs(artifact: Artifact) -> Costs:
    """Returns the costs of an ``onnx-fp32`` artifact, counted from its graph."""
    import onnx

    layers = layer_costs(onnx.load(artifact.model_file))
    network = sum_costs(layers, parameters=artifact.parameters)

    def share(kind: Kind) -> float:
        return sum(layer.macs for layer in layers if layer.kind == kind) / (network.macs or 1)

    return Costs(
        **asdict(network),
        kernels=sum(layer.bytes_moved() > 0 for layer in layers),
        depthwise=share("depthwise"),
        pointwise=share("pointwise"),
        grouped=share("grouped"),
    )


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
        latency: every sample from host to host, by wall clock, or None.
        reason: why there is no latency; None where there is one.
        device: every sample of what stays on the GPU, by CUDA events; in words, why there is
            none; None where nothing is on a GPU.
        graph: likewise, replayed as a CUDA graph.
        costs: what the float32 graph costs; on rows of the onnx-fp32 artifact, None on others.
        weights, macs, parameters, size, sha256, metrics, unverified: the artifact's own words
            (``size``: bytes of the model file, ``sha256``: its digest); None where it could not
            be read, and ``metrics`` also where no accuracy was measured.
        machine: key of the machine in the header.
        when: UTC date and time at which the run began that measured it, ISO 8601. Only rows of one
            run took turns beside each other.
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
        """Returns what tells rows apart: the artifact's folder, runtime, batch and threads."""
        return self.folder, self.runtime, self.batch, self.threads

    @property
    def network(self) -> str:
        """Returns the folder of the network's artifacts: ``<model>-<data>``."""
        return self.folder.rpartition("/")[0]

    def at(self, place: Place) -> Latency | None:
        """Returns the latency at ``place``, or None."""
        found = self.latency if place == "host" else getattr(self, place)
        return found if isinstance(found, Latency) else None

    def with_latency(self, place: Place, found: Latency | str | None) -> Row:
        """Returns the row with the latency at ``place``, or, in words, why there is none."""
        if place == "device":
            return replace(self, device=found)
        if place == "graph":
            return replace(self, graph=found)
        if isinstance(found, str):
            return replace(self, latency=None, reason=found)
        return replace(self, latency=found, reason=None)

    @property
    def rate(self) -> float | None:
        """Returns the MACs per second that were reached at p50, or None."""
        if self.latency is None or self.macs is None:
            return None
        return self.macs * self.batch / self.latency.p50


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """What was measured on one machine.

    Attributes:
        machine: this machine.
        plan: how much was measured in the last run.
        rows: all candidates, those of earlier runs too.
        before: state of the machine when the last run began.
        after: likewise, when it ended.
    """

    machine: Machine
    plan: Plan
    rows: tuple[Row, ...]
    before: Conditions
    after: Conditions

    def only(self, model: str | None = None, data: str | None = None) -> Sweep:
        """Returns the sweep without the networks that are not asked for.

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
        """Returns the sweep of what was measured at ``place``, as if only that had been."""
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
        """Returns the measured rows of its network, batch size and threads, the fastest first."""
        return self.measured(row.network, row.batch, row.threads)

    def eager(self, row: Row) -> Row | None:
        """Returns torch eager at the network, batch size and threads of ``row``, if measured.

        It is that in fp32, on the GPU for what runs there.
        """
        on_gpu = row.runtime is not None and runs_on_gpu(row.runtime)
        eager = ("torch-cuda" if on_gpu else "torch", "fp32")
        peers = self.peers(row)
        return next((peer for peer in peers if (peer.runtime, peer.precision) == eager), None)

    def times_torch(self, row: Row) -> Spread | str:
        """Returns how many times faster than torch eager ``row`` is; in words, why not."""
        eager = self.eager(row)
        if eager is None or row.latency is None:
            return "torch eager was not measured beside it"
        return times(eager, row)

    def tied(self, row: Row) -> list[Row]:
        """Returns the other rows of :meth:`peers` that ``row`` cannot be told from."""
        if row.latency is None:
            return []
        others = self.peers(row)
        return [r for r in others if r is not row and r.latency and overlap(r.latency, row.latency)]


def latency(row: Row) -> Latency:
    """Returns the latency of a row that was measured."""
    assert row.latency is not None, "only measured rows have a latency"
    return row.latency


def p50(row: Row) -> float:
    """Returns the median latency, in seconds, of a row that was measured."""
    return latency(row).p50


def times(over: Row, under: Row) -> Spread | str:
    """Returns how many times as long ``over`` takes as ``under``, turn by turn.

    In words, why there is no such figure: a machine is faster in one run than in another, so only
    rows of one run are divided by each other.
    """
    if over.when != under.when:
        return (
            f"{over.runtime} was measured in another run ({over.when} and {under.when}); "
            "ARGS=--fresh measures both in one"
        )
    ratios = turn_ratios(latency(over), latency(under))
    if len(ratios) < FEWEST:
        return f"it and {over.runtime} took {len(ratios)} turns beside each other, too few to tell"
    return Spread.of(ratios)


def is_asked(network: str, model: str | None, data: str | None) -> bool:
    """Returns whether ``<model>-<data>`` is of this model and data; None is any."""
    start = "" if model is None else f"{canonical_name(model)}-"
    end = "" if data is None else f"-{data}"
    return network.startswith(start) and network.endswith(end)


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


def title(row: Row) -> str:
    """Returns the artifact and runtime of a row: ``onnx-int8 in ort-cpu``."""
    return f"{row.format}-{row.precision} in {row.runtime}"


def top1(row: Row) -> str:
    """Returns the artifact's own measured accuracy, with the number of images."""
    if row.metrics is None:
        return MISSING
    return f"{percent(row.metrics.top1)} of {row.metrics.images:,}"


def threads(row: Row) -> str:
    """Returns the CPU threads inside a call of ``row``: ``2 threads``."""
    return f"{row.threads} thread{'s' if row.threads != 1 else ''}"
