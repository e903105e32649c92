"""The layers of networks as one runtime ran them, and the file that keeps them.

`layers.jsonl` holds a header (schema, machine) on its first line, and the layers of an artifact at
a batch size on each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, with_config

from artifact.records import Precision
from bench.experiment import this_machine
from bench.measure.timing import Latency
from core.machine import Machine
from core.record_file import RecordFile
from models.cost import Kind

# ONNX Runtime's operators that multiply integers; an int8 graph keeps some layers in float32.
_INTEGER = re.compile(r"QLinear.*|QGemm|.*Integer")
SCHEMA = 1
FILE = "layers.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerTime:
    """A kernel, and the layer it computes.

    Attributes:
        name: of the layer, by its torch module or else its node; of the kernel if it was added.
        op: the kernel's operator.
        kind: of the layer; see :class:`models.cost.LayerCost`.
        added: the runtime added it, such as a change of layout; the network has no such layer.
        macs: multiply-accumulates of all images of a call.
        bytes: input, weights and output of the layer, as papers count them, for all images of a
            call; 0 if added.
        read: bytes that the kernel cannot but read of what other kernels made, in the type that
            the runtime holds them in.
        weights: likewise, of weights and biases.
        written: bytes of its output.
        seconds: of a call, without what the profiler adds.
    """

    name: str
    op: str
    kind: Kind
    added: bool
    macs: int
    bytes: int
    read: int
    weights: int
    written: int
    seconds: float

    @property
    def precision(self) -> Precision:
        """Returns what its kernel computes in."""
        return computed_in(self.op)

    @property
    def traffic(self) -> int:
        """Returns the bytes that its kernel must move."""
        return self.read + self.weights + self.written


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """The share of a kind of layers in a network's cost and time, each as a fraction."""

    kind: Kind
    kernels: int
    macs: float
    bytes: float
    time: float
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerTimes:
    """The layers of one artifact, as measured in ONNX Runtime on the CPU.

    Attributes:
        model: registry name of the network.
        data: name of the data it answers for.
        precision: of the graph.
        sha256: of the graph.
        batch: images of a call.
        threads: CPU threads inside a call.
        layers: in the order they run.
        call: latency of whole calls, without the profiler, interleaved with those with it.
        machine: key of the machine, with the versions of its libraries.
        when: UTC date and time at which the run began that profiled it, ISO 8601; the peaks that
            were measured beside it have the same.
    """

    model: str
    data: str
    precision: Precision
    sha256: str
    batch: int
    threads: int
    layers: tuple[LayerTime, ...]
    call: Latency
    machine: str
    when: str

    @property
    def network(self) -> str:
        """Returns ``<model>-<data>``."""
        return f"{self.model}-{self.data}"

    @property
    def key(self) -> tuple[str, str, int, int]:
        """Returns what tells rows apart: network, precision, batch and threads."""
        return self.network, self.precision, self.batch, self.threads

    @property
    def seconds(self) -> float:
        """Returns the sum of all kernels."""
        return sum(layer.seconds for layer in self.layers)

    @property
    def macs(self) -> int:
        """Returns the multiply-accumulates of a call."""
        return sum(layer.macs for layer in self.layers)

    @property
    def bytes(self) -> int:
        """Returns the bytes that all layers move."""
        return sum(layer.bytes for layer in self.layers)

    def slowest(self, count: int) -> list[LayerTime]:
        """Returns the layers that take longest."""
        return sorted(self.layers, key=lambda layer: -layer.seconds)[:count]

    def shares(self) -> list[Share]:
        """Returns the share of each kind, the largest share of time first."""
        kinds: dict[Kind, list[LayerTime]] = {}
        for layer in self.layers:
            kinds.setdefault(layer.kind, []).append(layer)
        macs, bytes_ = self.macs or 1, self.bytes or 1
        shares = [
            Share(
                kind=kind,
                kernels=len(layers),
                macs=sum(layer.macs for layer in layers) / macs,
                bytes=sum(layer.bytes for layer in layers) / bytes_,
                time=sum(layer.seconds for layer in layers) / self.seconds,
                seconds=sum(layer.seconds for layer in layers),
            )
            for kind, layers in kinds.items()
        ]
        return sorted(shares, key=lambda share: -share.time)


def computed_in(op: str) -> Precision:
    """Returns the precision that a kernel of ONNX Runtime on a CPU computes in, by its operator.

    There is no fp16 among them: it converts an fp16 graph to float32.
    """
    return "int8" if _INTEGER.fullmatch(op) else "fp32"


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True)
class LayersHeader:
    """What all rows of a file share."""

    schema: int
    machine: Machine


RECORDS = RecordFile(LayersHeader, LayerTimes, schema=SCHEMA)


def known_layers(folder: Path) -> list[LayerTimes]:
    """Returns the layers in ``folder`` of this machine and these versions, none of others.

    Raises:
        UserError: a file that cannot be understood; the line is named.
    """
    path = folder / FILE
    if not path.exists():
        return []
    header, rows = RECORDS.read(path)
    return rows if header.machine.key == this_machine().key else []


def keep_layers(rows: Iterable[LayerTimes], folder: Path) -> Path:
    """Returns the file in ``folder`` that now holds ``rows`` besides those it held of others.

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
