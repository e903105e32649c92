"""This machine's peak rates of operations and bytes, and the file that stores them.

A peak is the best of several shapes and all repetitions of one run. Peaks of different runs are not
combined, as the speed of a machine varies.
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

# Runtime -> function that takes the number of CPU threads inside a call and measures the peaks.
_MEASURERS = {
    "ort-cpu": "bench.layers.cpu_peaks:cpu_peaks",
    "torch-cuda": "bench.layers.gpu_peaks:gpu_peaks",
}
SCHEMA = 1
FILE = "peaks.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Peaks:
    """The peak rates of a runtime on a machine.

    Attributes:
        machine: key of the machine.
        runtime: runtime that ran the matrix products.
        threads: CPU threads inside a call.
        flops: precision to floating-point or integer operations per second; a
            multiply-accumulate counts as two.
        bandwidth: (working set in bytes, bytes per second read and written), ascending.
        launch: seconds to launch a kernel.
        when: UTC date and time, ISO 8601; that of the layers measured in the same run, if any.
    """

    machine: str
    runtime: str
    threads: int
    flops: dict[Precision, float]
    bandwidth: tuple[tuple[int, float], ...]
    launch: float
    when: str

    def rate(self, size: int) -> float:
        """Returns the peak bytes per second for a working set of ``size`` bytes.

        It is the highest rate of all measured sets from the largest that is not larger than
        ``size`` upwards, since a smaller set is never slower.
        """
        inside = [at for at, (least, _) in enumerate(self.bandwidth) if least <= size]
        return max(rate for _, rate in self.bandwidth[max(inside, default=0) :])

    def seconds(self, moved: int, within: int) -> float:
        """Returns the least seconds to move ``moved`` bytes within a set of ``within`` bytes."""
        return moved / self.rate(within)


def measure_peaks(runtime: str, threads: int) -> Peaks:
    """Measures the peaks of this machine in ``runtime``, which takes a few seconds.

    Raises:
        UserError: the peaks of this runtime cannot be measured.
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
    """Returns all peaks stored in ``folder``, of any machine.

    Raises:
        UserError: the file cannot be understood.
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
    """Stores ``peaks`` in ``folder`` and returns the path of the file.

    Earlier peaks of the same machine, runtime and threads are dropped unless in ``beside``.

    Args:
        peaks: the new peaks.
        folder: folder of the file.
        beside: dates (``when``) of stored layers, whose peaks must be kept.
    """
    place, needed = (peaks.machine, peaks.runtime, peaks.threads), set(beside) - {peaks.when}
    kept = [
        one
        for one in known_peaks(folder)
        if (one.machine, one.runtime, one.threads) != place or one.when in needed
    ]
    document = _Document(schema=SCHEMA, peaks=(*kept, peaks))
    return write_whole(folder / FILE, dump(document, indent=1) + b"\n")
