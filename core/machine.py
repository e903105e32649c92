"""Describes the machine that figures were measured on."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from core.cores import usable_cores

_CPUINFO = Path("/proc/cpuinfo")
_VECTORS = (
    *("avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16"),
    *("amx_int8", "amx_bf16", "amx_fp16"),
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),  # ARM
)
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What a latency depends on besides the artifact; None and absent keys mean "not known".

    Attributes:
        cpu: the processor's model name.
        cores: how many of its cores this process may use.
        memory: main memory in bytes.
        os: distribution or system, with its version.
        kernel: release of the kernel.
        governor: frequency policy of the first core.
        gpu: name of the first NVIDIA GPU.
        driver: version of its driver.
        versions: versions of the installed libraries by name, including Python and NumPy.
    """

    cpu: str
    cores: int
    memory: int | None
    os: str
    kernel: str
    governor: str | None
    gpu: str | None
    driver: str | None
    versions: dict[str, str]

    @property
    def key(self) -> str:
        """Returns 12 hex digits that are equal for machines whose rows are comparable."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def this_machine(packages: Iterable[str]) -> Machine:
    """Returns a description of the machine this process runs on.

    Args:
        packages: PyPI names of the libraries that compute. Of two packages of the same library,
            such as onnxruntime-gpu and onnxruntime, the first one installed counts: list the GPU
            package first, as it is installed over the other.
    """
    gpu, driver = _gpu()
    return Machine(
        cpu=cpu_name(),
        cores=usable_cores(),
        memory=main_memory(),
        os=_os(),
        kernel=platform.release(),
        governor=_GOVERNOR.read_text().strip() if _GOVERNOR.is_file() else None,
        gpu=gpu,
        driver=driver,
        versions=_versions(packages),
    )


def library_name(package: str) -> str:
    """Returns the key in :attr:`Machine.versions` of the library in ``package``."""
    return package.removesuffix("-gpu").replace("-", "_")


def cpu_name() -> str:
    """Returns the processor's model name, or its architecture if the system gives no name."""
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()  # ARM kernels give no model name


def adds_in_32_bits() -> bool:
    """Returns whether the processor adds products of 8-bit integers in 32 bits.

    Those of x86 do with VNNI. Without it, sums of two products of uint8 and int8 are clipped to 16
    bits. ARM's never are.
    """
    arm = platform.machine().lower() in ("aarch64", "arm64")
    return arm or not {"avx_vnni", "avx512_vnni", "amx_int8"}.isdisjoint(instruction_sets())


def instruction_sets() -> tuple[str, ...]:
    """Returns the vector instruction sets of the processor that speed up inference.

    The names are Linux's. Empty where the system does not list them.
    """
    lines = _CPUINFO.read_text(encoding="utf-8").splitlines() if _CPUINFO.is_file() else []
    for line in lines:
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):  # x86, ARM
            present = set(flags.split())
            return tuple(name for name in _VECTORS if name in present)
    return ()


def main_memory() -> int | None:
    """Returns the main memory in bytes; None if the system does not say."""
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _os() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):  # no os-release file: not a Linux distribution
        return platform.platform(terse=True)


def _gpu() -> tuple[str | None, str | None]:
    """Returns the name and driver version of the first NVIDIA GPU, or (None, None)."""
    return (facts[0], facts[1]) if (facts := ask_gpu("name", "driver_version")) else (None, None)


def ask_gpu(*fields: str) -> list[str] | None:
    """Returns ``fields`` of ``nvidia-smi --query-gpu`` for the first GPU; None without one."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    if answer.returncode or not answer.stdout.strip():  # nvidia-smi without a working GPU
        return None
    return [value.strip() for value in answer.stdout.splitlines()[0].split(",")]


def _versions(packages: Iterable[str]) -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in (*packages, "numpy"):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions.setdefault(library_name(package), importlib.metadata.version(package))
    return versions
