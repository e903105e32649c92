"""The layer times of networks, and the file that stores them.

The first line of `layers.jsonl` is a header (schema, machine), each other line the layers of an
artifact at a batch size.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, with_config

from artifact.records import Precision
from bench.experiment import this_machine
from bench.measure.timing import Latency, decisive
from core.machine import Machine
from core.record_file import RecordFile
from models.cost import Kind

# ONNX Runtime's integer operators; some layers of an int8 graph are float32.
_INTEGER = re.compile(r"QLinear.*|QGemm|.*Integer")
SCHEMA = 1
FILE = "layers.jsonl"


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerTime:
    """A kernel, and the layer it computes.

    Attributes:
        name: name of the layer's torch module, or else of its node; if added, of the kernel.
        op: the kernel's operator.
        kind: kind of the layer; see :class:`models.cost.LayerCost`.
        added: whether the runtime added it, such as a change of layout.
        macs: multiply-accumulates of all images of a call.
        bytes: bytes of input, weights and output of the layer, as papers count them, for all
            images of a call; 0 if added.
        read: bytes that the kernel must read of other kernels' outputs, in the runtime's data type.
        weights: bytes of weights and biases, in the runtime's data type.
        written: bytes of its output.
        seconds: seconds in a call, without the profiler's overhead.
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
        """Returns the precision in which its kernel computes."""
        return computed_in(self.op)

    @property
    def traffic(self) -> int:
        """Returns the bytes that its kernel must move."""
        return self.read + self.weights + self.written


@dataclass(frozen=True, kw_only=True, slots=True)
class Share:
    """The contribution of a kind of layer to a network's cost and time.

    Attributes:
        kind: kind of layer.
        kernels: number of kernels.
        macs: fraction of the network's MACs.
        bytes: fraction of the bytes.
        time: fraction of the time.
        seconds: seconds in a call.
    """

    kind: Kind
    kernels: int
    macs: float
    bytes: float
    time: float
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerTimes:
    """The layer times of one artifact in ONNX Runtime on the CPU.

    Attributes:
        model: registry name of the network.
        data: name of the data set.
        precision: precision of the graph.
        sha256: digest of the graph.
        batch: batch size.
        threads: CPU threads inside a call.
        layers: layers in execution order.
        call: latency of calls without the profiler, interleaved with the profiled ones; with CPU
            times where one thread computes.
        machine: key of the machine, with the versions of its libraries.
        when: UTC date and time of the start of the run, ISO 8601; the peaks of the same run have
            the same.
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
        """Returns the key that identifies the row: network, precision, batch and threads."""
        return self.network, self.precision, self.batch, self.threads

    @property
    def seconds(self) -> float:
        """Returns the sum of the times of all kernels."""
        return sum(layer.seconds for layer in self.layers)

    @property
    def call_seconds(self) -> float:
        """Returns the median seconds of a call: its CPU time where one thread computes."""
        return decisive([self.call])[0].p50

    @property
    def macs(self) -> int:
        """Returns the multiply-accumulates of a call."""
        return sum(layer.macs for layer in self.layers)

    @property
    def bytes(self) -> int:
        """Returns the bytes that all layers move."""
        return sum(layer.bytes for layer in self.layers)

    def slowest(self, count: int) -> list[LayerTime]:
        """Returns the ``count`` slowest layers."""
        return sorted(self.layers, key=lambda layer: -layer.seconds)[:count]

    def shares(self) -> list[Share]:
        """Returns a :class:`Share` for each kind of layer, the largest fraction of time first."""
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
    """Returns the precision in which ONNX Runtime on a CPU computes operator ``op``.

    It is never fp16: an fp16 graph is converted to float32.
    """
    return "int8" if _INTEGER.fullmatch(op) else "fp32"


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True)
class LayersHeader:
    """The first line of the file."""

    schema: int
    machine: Machine


RECORDS = RecordFile(LayersHeader, LayerTimes, schema=SCHEMA)


def known_layers(folder: Path) -> list[LayerTimes]:
    """Returns the layers stored in ``folder``; none if of another machine or other versions.

    Raises:
        UserError: the file cannot be understood; the message has the line number.
    """
    path = folder / FILE
    if not path.exists():
        return []
    header, rows = RECORDS.read(path)
    return rows if header.machine.key == this_machine().key else []


def keep_layers(rows: Iterable[LayerTimes], folder: Path) -> Path:
    """Stores ``rows`` in ``folder`` and returns the path of the file; other rows are kept.

    A file of another machine, or of other library versions, is replaced, as it is of no use here.
    """
    machine = this_machine()
    kept = {row.key: row for row in known_layers(folder)}
    for row in rows:
        assert row.machine == machine.key, "rows of two machines do not mix"
        kept[row.key] = row
    header = LayersHeader(schema=SCHEMA, machine=machine)
    return RECORDS.write(folder / FILE, header, (kept[key] for key in sorted(kept)))
