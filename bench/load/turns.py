"""The plan and the turns of a measurement under load."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from bench.load.loops import Load
from bench.measure.spread import FEWEST
from bench.measure.timing import Latency
from core.errors import UserError

Form = Literal["raw", "multipart"]
Arrivals = Literal["fixed", "poisson"]
What = Literal["in process", "closed", "open", "before", "burst", "after"]
BURST = 32  # connections


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadPlan:
    """How much is measured.

    Attributes:
        rounds: turns of each closed loop, and of the limit.
        seconds: of one turn.
        connections: of the closed loops.
        forms: how images are sent.
        open_rounds: turns of each open loop.
        open_seconds: of one such turn.
        shares: of the throughput found, which the open loops ask for.
        arrivals: when requests of the open loops are due.
        lone_seconds: of the lone client before the burst, of the burst, and of the client after.
        seed: of the order of the turns, and of random arrivals.
    """

    rounds: int = 5
    seconds: float = 0.8
    connections: tuple[int, ...] = (1, 8, 32)
    forms: tuple[Form, ...] = ("raw", "multipart")
    open_rounds: int = 5
    open_seconds: float = 1.5
    shares: tuple[float, ...] = (0.5, 0.7, 0.9)
    arrivals: tuple[Arrivals, ...] = ("fixed", "poisson")
    lone_seconds: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        rounds = min(self.rounds, self.open_rounds)
        if rounds < FEWEST or min(self.seconds, self.open_seconds, self.lone_seconds) <= 0:
            raise UserError(
                f"rounds are {self.rounds}, open_rounds {self.open_rounds}, seconds "
                f"{self.seconds:g}, open_seconds {self.open_seconds:g}, lone_seconds "
                f"{self.lone_seconds:g}: at least {FEWEST} rounds and more than 0 s are needed"
            )

    def count(self, images: int) -> int:
        """Returns the number of turns for so many sets of images."""
        inside, closed = images, images * len(self.forms) * len(self.connections)
        opened = len(self.arrivals) * len(self.shares)
        return 3 + self.rounds * (inside + closed) + self.open_rounds * opened


QUICK = LoadPlan(
    rounds=3,
    seconds=0.4,
    forms=("raw",),
    open_rounds=3,
    open_seconds=0.5,
    arrivals=("fixed",),
    lone_seconds=1.0,
)


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
