"""This machine's peak rates of operations and bytes, and the file that keeps them.

A peak is the best of several shapes and of all repetitions, measured once: a machine that is slower
today bounds what runs today.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, with_config

from artifact.records import Precision
from core.errors import UserError
from core.files import write_whole
from core.lazy import resolve
from core.record_file import dump, parse, schema_of

# Runtime -> what measures its peaks, from the number of CPU threads inside a call.
_MEASURERS = {
    "ort-cpu": "bench.layers.cpu_peaks:cpu_peaks",
    "torch-cuda": "bench.layers.gpu_peaks:gpu_peaks",
}
SCHEMA = 1
FILE = "peaks.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Peaks:
    """The rates that no kernel of a runtime on a machine can exceed.

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
        """Returns the peak bytes per second within a working set of ``size`` bytes.

        That of the largest measured set that is no larger: a smaller one is never slower. Sets
        below the smallest are given its rate.
        """
        inside = [at for at, (least, _) in enumerate(self.bandwidth) if least <= size]
        return max(rate for _, rate in self.bandwidth[max(inside, default=0) :])

    def seconds(self, moved: int, within: int) -> float:
        """Returns the least seconds of moving bytes within a working set of bytes."""
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


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True)
class _Document:
    schema: int
    peaks: tuple[Peaks, ...]


def known_peaks(folder: Path) -> tuple[Peaks, ...]:
    """Returns all peaks that ``folder`` holds, of this machine and of others.

    Raises:
        UserError: a file that cannot be understood.
    """
    path = folder / FILE
    if not path.exists():
        return ()
    text = path.read_bytes()
    if (schema := schema_of(text)) != SCHEMA:
        raise UserError(
            f"{path}: no peaks of schema {SCHEMA} (found {schema!r}); "
            "delete the file, and they are measured again"
        )
    return parse(_Document, text, str(path)).peaks


def keep_peaks(peaks: Peaks, folder: Path, beside: Collection[str] = ()) -> Path:
    """Returns the file in ``folder`` that now holds ``peaks``, and earlier ones that are needed.

    Args:
        peaks: measured now.
        folder: for the file.
        beside: dates of layers that are still explained by the peaks measured beside them; others
            of the same machine, runtime and threads are dropped.
    """
    place, needed = (peaks.machine, peaks.runtime, peaks.threads), set(beside) - {peaks.when}
    kept = [
        one
        for one in known_peaks(folder)
        if (one.machine, one.runtime, one.threads) != place or one.when in needed
    ]
    document = _Document(schema=SCHEMA, peaks=(*kept, peaks))
    return write_whole(folder / FILE, dump(document, indent=1) + b"\n")
