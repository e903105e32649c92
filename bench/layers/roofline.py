"""The roofline of each layer: a lower limit of its time on this machine.

Source: the roofline model, Williams, Waterman and Patterson, "Roofline: an insightful visual
performance model for multicore architectures", CACM 52(4), 2009. Two extensions: the bandwidth
depends on the size of the working set, as small networks fit into caches, and the launch of a
kernel is a third bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from artifact.records import Precision
from bench.latency.record import Row, latency
from bench.layers.peaks import Peaks
from bench.layers.record import LayerTime, LayerTimes
from bench.measure.timing import decisive
from models.cost import BYTES
from report.format import ms, percent

Limit = Literal["compute", "memory", "launch"]
LIMITS: tuple[Limit, ...] = get_args(Limit)
AGREES = 0.25  # largest relative difference between kernels and calls, and between two runs
_BINDING = (
    2e-4  # seconds of a call outside kernels: Python and the runtime, see bench.timer.measure
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """The lower limits of a kernel's time in seconds.

    Attributes:
        compute: its operations at the peak rate of its precision.
        activations: its input and output, at the bandwidth for a working set of their size.
        weights: its weights, at the bandwidth for a working set of all weights of the network,
            which are all read between two uses.
        launch: overhead of launching a kernel.
    """

    compute: float
    activations: float
    weights: float
    launch: float

    @property
    def memory(self) -> float:
        """Returns the seconds for all memory traffic."""
        return self.activations + self.weights

    @property
    def by(self) -> Limit:
        """Returns the limit that takes longest."""
        return max(LIMITS, key=lambda limit: float(getattr(self, limit)))

    @property
    def seconds(self) -> float:
        """Returns the lower limit: the longest of the three, which may overlap in time."""
        return max(self.compute, self.memory, self.launch)


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """Some kernels of a network, with the sums of their times and bounds.

    Attributes:
        name: what they have in common; see :meth:`Roof.parts`.
        kernels: number of kernels.
        seconds: their measured seconds in a call.
        limit: sum of their bounds in seconds.
        compute: seconds that their operations take at the peak rate.
    """

    name: str
    kernels: int
    seconds: float
    limit: float
    compute: float

    @property
    def excess(self) -> float:
        """Returns the seconds above the bounds."""
        return self.seconds - self.limit

    @property
    def reached(self) -> float:
        """Returns the fraction of what the machine can do: bounds over time."""
        return self.limit / self.seconds


def bounds(times: LayerTimes, peaks: Peaks) -> list[Bound]:
    """Returns the bound of each layer of ``times``."""
    weights = sum(layer.weights for layer in times.layers)
    return [_bound(layer, weights, peaks) for layer in times.layers]


def _bound(layer: LayerTime, weights: int, peaks: Peaks) -> Bound:
    activations = layer.read + layer.written
    return Bound(
        compute=2 * layer.macs / peaks.flops[layer.precision],
        activations=peaks.seconds(activations, within=activations),
        weights=peaks.seconds(layer.weights, within=weights),
        launch=peaks.launch,
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Roof:
    """The measured layers of a network with their roofline bounds.

    Attributes:
        times: the measured layers.
        peaks: peak rates of the machine, measured in the same run.
        bounds: bound of each layer.
    """

    times: LayerTimes
    peaks: Peaks
    bounds: tuple[Bound, ...]

    @property
    def setting(self) -> tuple[Precision, int]:
        """Returns precision and batch size; networks are compared only within a setting."""
        return self.times.precision, self.times.batch

    def pairs(self) -> list[tuple[LayerTime, Bound]]:
        """Returns each layer with its bound."""
        return list(zip(self.times.layers, self.bounds, strict=True))

    @property
    def limit(self) -> float:
        """Returns the lower limit of a call in seconds: the sum of all bounds."""
        return sum(bound.seconds for bound in self.bounds)

    @property
    def ratio(self) -> float:
        """Returns the median time of a call, without the profiler, over its lower limit."""
        return self.times.call_seconds / self.limit

    @property
    def outside(self) -> float:
        """Returns the seconds of a call outside its kernels: Python, the runtime, rounding."""
        return self.times.call_seconds - self.times.seconds

    def shares(self) -> dict[Limit, float]:
        """Returns, for each limit, the fraction of the kernel time in layers that it bounds."""
        whole, shares = self.times.seconds, dict.fromkeys(LIMITS, 0.0)
        for layer, bound in self.pairs():
            shares[bound.by] += layer.seconds / whole
        return shares

    def broken(self) -> list[tuple[LayerTime, Bound]]:
        """Returns the layers that were measured faster than their bound, which is thus wrong."""
        return [(layer, bound) for layer, bound in self.pairs() if layer.seconds < bound.seconds]

    def parts(self) -> list[Part]:
        """Returns the sums over kernels of a kind, those with most seconds above bounds first.

        Kinds are those of layers, with two of their own: changes of layout, and pointwise layers
        on one pixel, which are those of squeeze-and-excitation: they read each weight for one MAC.
        """
        found: dict[str, list[tuple[LayerTime, Bound]]] = {}
        for layer, bound in self.pairs():
            found.setdefault(_part(layer, self.times.batch), []).append((layer, bound))
        parts = [
            Part(
                name=name,
                kernels=len(pairs),
                seconds=sum(layer.seconds for layer, _ in pairs),
                limit=sum(bound.seconds for _, bound in pairs),
                compute=sum(bound.compute for _, bound in pairs),
            )
            for name, pairs in found.items()
        ]
        return sorted(parts, key=lambda part: -part.excess)


def _part(layer: LayerTime, batch: int) -> str:
    if layer.op in ("ReorderInput", "ReorderOutput"):
        return "layout"
    weights = layer.weights // BYTES[layer.precision]
    if layer.kind == "pointwise" and layer.macs <= weights * batch:
        return "one-pixel pointwise"
    return layer.kind


def roof(times: LayerTimes, peaks: Peaks) -> Roof:
    """Returns ``times`` with bounds from ``peaks``, which must have the same threads."""
    assert times.threads == peaks.threads, "peaks of another number of threads bound nothing"
    return Roof(times=times, peaks=peaks, bounds=tuple(bounds(times, peaks)))


def doubt(times: LayerTimes, row: Row | None = None) -> str | None:
    """Returns why the layer times are inconsistent with the latency of a call; None if they agree.

    Args:
        times: layers, with the latency of calls that were interleaved with the profiled ones.
        row: row of the report with the same graph and setting; None if there is none.
    """
    kernels, call = times.seconds, times.call_seconds
    limit = f"more than {percent(AGREES, decimals=0)} apart"
    if kernels > (1 + AGREES) * call or call - _BINDING > (1 + AGREES) * kernels:
        return (
            f"its kernels add up to {ms(kernels)} ms, and calls interleaved with the profiled ones "
            f"took {ms(call)} ms: {limit}, as on a busy machine"
        )
    if row is None:
        return None
    if row.sha256 != times.sha256:
        return "another graph of that name was profiled"
    profiled, shown = (time.p50 for time in decisive((times.call, latency(row))))
    if max(profiled / shown, shown / profiled) > 1 + AGREES:
        return (
            f"a call took {ms(profiled)} ms when it was profiled, and {ms(shown)} ms when it was "
            f"measured: {limit}"
        )
    return None
