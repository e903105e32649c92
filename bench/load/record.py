"""The turns of a measurement under load, and the header of the file that keeps them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from artifact.records import Precision
from bench.load.loops import Load
from bench.load.plan import Arrivals, Form, LoadPlan
from bench.measure.timing import Latency
from core.conditions import Conditions
from core.machine import Machine
from core.record_file import RecordFile

What = Literal["in process", "closed", "open", "before", "burst", "after"]
SCHEMA, NAME = 2, "load"


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One turn.

    Attributes:
        what: was measured.
        server: name of the server, where several are compared.
        images: name of the set.
        form: how it was sent; None in process.
        connections: over which; None in process.
        round: number, from 0.
        share: of the server's throughput that was asked for; in open loops only.
        arrivals: likewise.
        load: what came back; in process it has a throughput only.
    """

    what: What
    server: str | None = None
    images: str
    form: Form | None = None
    connections: int | None = None
    round: int = 0
    share: float | None = None
    arrivals: Arrivals | None = None
    load: Load


@dataclass(frozen=True, slots=True)
class Turns:
    """What was measured, looked up."""

    all: tuple[Turn, ...]

    def loads(self, **wanted: object) -> list[Load]:
        """Returns the loads of the turns whose attributes are ``wanted``, in order of round."""
        found = [t for t in self.all if all(getattr(t, k) == v for k, v in wanted.items())]
        return [turn.load for turn in sorted(found, key=lambda turn: turn.round)]

    def throughputs(self, **wanted: object) -> list[float]:
        """Returns the throughput in each round."""
        return [load.throughput for load in self.loads(**wanted)]

    def tails(self, **wanted: object) -> list[float]:
        """Returns p99 over p50 in each round; infinite in one without a good answer."""
        found = []
        for load in self.loads(**wanted):
            latency = Latency(turns=(load.latencies,), warmup=0)
            found.append(latency.p99 / latency.p50 if load.latencies else math.inf)
        return found

    def latency(self, **wanted: object) -> Latency | None:
        """Returns the latencies of all rounds; None if no answer was good."""
        turns = tuple(load.latencies for load in self.loads(**wanted))
        return Latency(turns=turns, warmup=0) if any(turns) else None


@dataclass(frozen=True, kw_only=True)
class Served:
    """What a server says of itself at ``/model``, as far as load needs to know.

    Attributes:
        model, data, precision: of its artifact.
        runtime: what executes it.
        sha256s: file name to digest, of the artifact's files.
    """

    model: str
    data: str
    precision: Precision
    runtime: str
    sha256s: dict[str, str]

    @property
    def name(self) -> str:
        """Returns it in words."""
        return f"{self.model} ({self.data}, {self.precision}, {self.runtime})"


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


def where(header: LoadHeader) -> str:
    """Returns on what and when all turns of a file were measured, in a sentence."""
    machine, before = header.machine, header.before
    loads = (_averages(before), _averages(header.after))
    return (
        f"Measured on {machine.cpu}, {machine.cores} usable cores, {machine.os}, {before.when}; "
        f"load averages before {loads[0]}, after {loads[1]}."
    )


def _averages(state: Conditions) -> str:
    averages = state.load_average
    return "unknown" if averages is None else " ".join(f"{value:.2f}" for value in averages)
