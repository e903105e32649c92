"""The roofline of each layer: what bounds it on this machine, and by how much it is missed.

Source: the roofline model, Williams, Waterman and Patterson, "Roofline: an insightful visual
performance model for multicore architectures", CACM 52(4), 2009; with a bandwidth for each size of
working set, as small networks live in caches, and with the launch of a kernel as a third bound.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from artifact.records import Precision
from bench.latency.record import Row, p50
from bench.layers.peaks import Peaks
from bench.layers.record import LayerTime, LayerTimes
from models.cost import Kind
from report.format import ms, percent

Limit = Literal["compute", "memory", "launch"]
LIMITS: tuple[Limit, ...] = get_args(Limit)
AGREES = 0.25  # how much longer the one may be than the other
_BINDING = (
    2e-4  # seconds of a call that are no kernel's: Python and the runtime, see bench.timer.measure
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Bound:
    """The seconds that a kernel takes at least, for each reason there is.

    Attributes:
        compute: its operations at the peak of its precision.
        activations: its input and output, in the cache that holds the two.
        weights: its weights, in the cache that holds those of the whole network: all others have
            passed since they were read last.
        launch: the call of a kernel.
    """

    compute: float
    activations: float
    weights: float
    launch: float

    @property
    def memory(self) -> float:
        """Returns the seconds of all bytes that it moves."""
        return self.activations + self.weights

    @property
    def by(self) -> Limit:
        """Returns the reason that takes longest."""
        return max(LIMITS, key=lambda limit: float(getattr(self, limit)))

    @property
    def seconds(self) -> float:
        """Returns the lower limit: the longest of the three, as if they overlapped."""
        return max(self.compute, self.memory, self.launch)


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
    """A network under its roofline.

    Attributes:
        times: its layers, as measured.
        peaks: of the machine, measured beside them.
        bounds: of each layer.
    """

    times: LayerTimes
    peaks: Peaks
    bounds: tuple[Bound, ...]

    @property
    def setting(self) -> tuple[Precision, int]:
        """Returns what networks are compared at: precision and batch size."""
        return self.times.precision, self.times.batch

    def pairs(self) -> list[tuple[LayerTime, Bound]]:
        """Returns each layer with its bound."""
        return list(zip(self.times.layers, self.bounds, strict=True))

    @property
    def limit(self) -> float:
        """Returns the seconds that a call takes at least: the sum of all bounds."""
        return sum(bound.seconds for bound in self.bounds)

    @property
    def ratio(self) -> float:
        """Returns how many times its limit a call takes, at p50 and without the profiler."""
        return self.times.call.p50 / self.limit

    def shares(self) -> dict[Limit, float]:
        """Returns the share of the kernels' time that is in layers bound by each reason."""
        whole, shares = self.times.seconds, dict.fromkeys(LIMITS, 0.0)
        for layer, bound in self.pairs():
            shares[bound.by] += layer.seconds / whole
        return shares

    def broken(self) -> list[tuple[LayerTime, Bound]]:
        """Returns the layers that were measured faster than their bound: each proves it wrong."""
        return [(layer, bound) for layer, bound in self.pairs() if layer.seconds < bound.seconds]

    def excess(self) -> dict[Kind, float]:
        """Returns the seconds that the layers of each kind take over their bounds."""
        found: dict[Kind, float] = {}
        for layer, bound in self.pairs():
            found[layer.kind] = found.get(layer.kind, 0.0) + layer.seconds - bound.seconds
        return found


def roof(times: LayerTimes, peaks: Peaks) -> Roof:
    """Returns ``times`` under the roofline of ``peaks``, measured with as many threads."""
    assert times.threads == peaks.threads, "peaks of another number of threads bound nothing"
    return Roof(times=times, peaks=peaks, bounds=tuple(bounds(times, peaks)))


def doubt(times: LayerTimes, row: Row | None = None) -> str | None:
    """Returns why ``times`` do not explain a call, or None if they do.

    Args:
        times: layers, and the calls that took turns with the profiled ones.
        row: the same graph in the same setting, as the report shows it; None where it does not.
    """
    kernels, call = times.seconds, times.call.p50
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
    if max(call / p50(row), p50(row) / call) > 1 + AGREES:
        return (
            f"a call took {ms(call)} ms when it was profiled, and {ms(p50(row))} ms when it was "
            f"measured: {limit}"
        )
    return None
