"""The turns of a load measurement, and the file that stores them."""

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
        what: what was measured.
        server: name of the server, if several are compared.
        images: name of the set of images.
        form: how images were sent; None in process.
        connections: number of connections; None in process.
        round: number of the round, from 0.
        share: requested rate as a fraction of the server's throughput; only in open loops.
        arrivals: distribution of the requests in time; only in open loops.
        load: the outcome; in process only its throughput is set.
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
    """All turns, with functions to select among them."""

    all: tuple[Turn, ...]

    def loads(self, **wanted: object) -> list[Load]:
        """Returns the outcomes of the turns with these attributes, in order of round."""
        found = [t for t in self.all if all(getattr(t, k) == v for k, v in wanted.items())]
        return [turn.load for turn in sorted(found, key=lambda turn: turn.round)]

    def throughputs(self, **wanted: object) -> list[float]:
        """Returns the throughput in each round."""
        return [load.throughput for load in self.loads(**wanted)]

    def tails(self, **wanted: object) -> list[float]:
        """Returns p99 over p50 in each round; infinite without a response of status 200."""
        found = []
        for load in self.loads(**wanted):
            latency = Latency(turns=(load.latencies,), warmup=0)
            found.append(latency.p99 / latency.p50 if load.latencies else math.inf)
        return found

    def latency(self, **wanted: object) -> Latency | None:
        """Returns the latencies of all rounds; None without any response of status 200."""
        turns = tuple(load.latencies for load in self.loads(**wanted))
        return Latency(turns=turns, warmup=0) if any(turns) else None


@dataclass(frozen=True, kw_only=True)
class Served:
    """The fields of a server's ``/model`` response that are needed here.

    Attributes:
        model, data, precision: fields of its artifact.
        runtime: name of the runtime.
        sha256s: file name to digest, for the artifact's files.
    """

    model: str
    data: str
    precision: Precision
    runtime: str
    sha256s: dict[str, str]

    @property
    def name(self) -> str:
        """Returns the artifact and runtime as text."""
        return f"{self.model} ({self.data}, {self.precision}, {self.runtime})"


@dataclass(frozen=True, kw_only=True)
class LoadHeader:
    """The first line of the file: server, client, plan and machine."""

    schema: int
    served: Served
    client: str
    plan: LoadPlan
    machine: Machine
    before: Conditions
    after: Conditions


RECORDS = RecordFile(LoadHeader, Turn, schema=SCHEMA)


def where(header: LoadHeader) -> str:
    """Returns a sentence on the machine, the date and the load averages."""
    machine, before = header.machine, header.before
    loads = (_averages(before), _averages(header.after))
    return (
        f"Measured on {machine.cpu}, {machine.cores} usable cores, {machine.os}, {before.when}; "
        f"load averages before {loads[0]}, after {loads[1]}."
    )


def _averages(state: Conditions) -> str:
    averages = state.load_average
    return "unknown" if averages is None else " ".join(f"{value:.2f}" for value in averages)
