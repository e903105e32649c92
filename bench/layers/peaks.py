"""The most that this machine does in a second: operations, and bytes by where they lie.

A peak is the best of several shapes and of all repetitions, measured once: a machine that is slower
today bounds what runs today.
"""

from __future__ import annotations

from dataclasses import dataclass

from artifact.records import Precision
from core.errors import UserError
from core.lazy import resolve

# Runtime -> what measures its peaks, from the number of CPU threads inside a call.
_MEASURERS = {
    "ort-cpu": "bench.layers.cpu_peaks:cpu_peaks",
    "torch-cuda": "bench.layers.gpu_peaks:gpu_peaks",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Peaks:
    """What no kernel of a runtime on a machine can exceed.

    Attributes:
        machine: key of the machine.
        runtime: what ran the matrix products.
        threads: CPU threads inside a call.
        flops: floating-point or integer operations per second, by precision; a
            multiply-accumulate is two.
        bandwidth: (bytes of a working set, bytes per second read and written), ascending.
        launch: seconds that the call of a kernel takes at least.
        when: UTC date and time, ISO 8601; that of the layers they were measured beside, if any.
    """

    machine: str
    runtime: str
    threads: int
    flops: dict[Precision, float]
    bandwidth: tuple[tuple[int, float], ...]
    launch: float
    when: str

    def rate(self, size: int) -> float:
        """Returns the bytes per second that are moved at most within a set of ``size`` bytes.

        That of the largest measured set that is no larger: a smaller one is never slower. Sets
        below the smallest are given its rate.
        """
        inside = [at for at, (least, _) in enumerate(self.bandwidth) if least <= size]
        return max(rate for _, rate in self.bandwidth[max(inside, default=0) :])

    def seconds(self, moved: int, within: int) -> float:
        """Returns the seconds that moving bytes takes at least, that lie in a set of bytes."""
        return moved / self.rate(within)


def measure_peaks(runtime: str, threads: int) -> Peaks:
    """Returns the peaks of this machine in ``runtime``, measured now, in a few seconds.

    Raises:
        UserError: nothing here measures the peaks of that runtime.
    """
    if runtime not in _MEASURERS:
        raise UserError(
            f"the peaks of {runtime} are not measured here: there are {', '.join(_MEASURERS)}"
        )
    peaks: Peaks = resolve(_MEASURERS[runtime])(threads)
    return peaks
