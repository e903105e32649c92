"""The state of a machine before and after it is measured."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean

from core.machine import ask_gpu

_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """The state of a machine at one moment; None where the system does not report it.

    Attributes:
        when: UTC date and time, ISO 8601.
        load_average: mean number of runnable tasks over the last 1, 5 and 15 minutes.
        cpu_mhz: mean clock of all cores, in MHz.
        gpu_mhz: clock of the first NVIDIA GPU's multiprocessors, in MHz.
    """

    when: str
    load_average: tuple[float, float, float] | None
    cpu_mhz: float | None
    gpu_mhz: float | None


def now() -> str:
    """Returns the UTC date and time, ISO 8601, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def conditions() -> Conditions:
    """Returns the state of this machine now."""
    return Conditions(
        when=now(),
        load_average=os.getloadavg() if hasattr(os, "getloadavg") else None,
        cpu_mhz=_cpu_mhz(),
        gpu_mhz=_gpu_mhz(),
    )


def _cpu_mhz() -> float | None:
    lines = _CPUINFO.read_text(encoding="utf-8").splitlines() if _CPUINFO.is_file() else []
    clocks = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    return mean(clocks) if clocks else None  # ARM kernels report none


def _gpu_mhz() -> float | None:
    clock = ask_gpu("clocks.sm")
    return float(clock[0]) if clock and clock[0].isdecimal() else None
