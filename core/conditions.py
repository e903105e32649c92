"""The state of a machine before and after it is measured."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean

_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, kw_only=True, slots=True)
class Conditions:
    """The state of a machine at one moment; None means that it does not show it.

    Attributes:
        when: UTC date and time, ISO 8601.
        load_average: runnable tasks over the last 1, 5 and 15 minutes.
        cpu_mhz: mean clock of all cores.
        gpu_mhz: clock of the first NVIDIA GPU's multiprocessors.
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
    return mean(clocks) if clocks else None  # ARM kernels show none


def _gpu_mhz() -> float | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=clocks.sm", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    first = answer.stdout.partition("\n")[0].strip()
    return float(first) if answer.returncode == 0 and first.isdecimal() else None
