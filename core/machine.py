"""The machine that figures were measured on."""

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
    *("asimd", "asimdhp", "asimddp", "i8mm", "bf16", "sve", "sve2", "sme"),  # of ARM
)
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What decides a latency besides the artifact; None and absent keys mean "not known".

    Attributes:
        cpu: the processor's model name.
        cores: how many of its cores this process may use.
        memory: bytes of main memory.
        os: distribution or system, with its version.
        kernel: release of the kernel.
        governor: frequency policy of the first core, where the system shows it.
        gpu: name of the first NVIDIA GPU.
        driver: version of its driver.
        versions: library to version, Python's and NumPy's among them; one that is not installed is
            absent.
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
        """Returns 12 hex digits that stay the same while rows are comparable."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def this_machine(packages: Iterable[str]) -> Machine:
    """Returns the machine this process runs on, as it is now.

    Args:
        packages: names in the package registry of the libraries that compute. Of two that bring
            the same one, such as onnxruntime-gpu and onnxruntime, the first that is installed
            counts: put the one for GPUs first, as it is installed over the other.
    """
    gpu, driver = _gpu()
    return Machine(
        cpu=cpu_name(),
        cores=usable_cores(),
        memory=_memory(),
        os=_os(),
        kernel=platform.release(),
        governor=_GOVERNOR.read_text().strip() if _GOVERNOR.is_file() else None,
        gpu=gpu,
        driver=driver,
        versions=_versions(packages),
    )


def library_name(package: str) -> str:
    """Returns what :attr:`Machine.versions` calls the library that a package brings."""
    return package.removesuffix("-gpu").replace("-", "_")


def cpu_name() -> str:
    """Returns the processor's model name, or its architecture where it shows none."""
    if _CPUINFO.is_file():
        for line in _CPUINFO.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()  # ARM kernels give no model name


def instruction_sets() -> tuple[str, ...]:
    """Returns the processor's vector instructions that inference gains by, by Linux's names.

    Empty where the system does not list them.
    """
    lines = _CPUINFO.read_text(encoding="utf-8").splitlines() if _CPUINFO.is_file() else []
    for line in lines:
        name, _, flags = line.partition(":")
        if name.strip() in ("flags", "Features"):  # of x86, of ARM
            present = set(flags.split())
            return tuple(name for name in _VECTORS if name in present)
    return ()


def _memory() -> int | None:
    if "SC_PHYS_PAGES" not in getattr(os, "sysconf_names", {}):
        return None
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _os() -> str:
    try:
        return platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):  # no os-release file: not a Linux distribution
        return platform.platform(terse=True)


def _gpu() -> tuple[str | None, str | None]:
    """Returns name and driver version of the first NVIDIA GPU, or (None, None)."""
    return (facts[0], facts[1]) if (facts := ask_gpu("name", "driver_version")) else (None, None)


def ask_gpu(*fields: str) -> list[str] | None:
    """Returns fields of ``nvidia-smi --query-gpu`` for the first GPU; None if none works."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    answer = subprocess.run(query, capture_output=True, text=True, check=False)
    if answer.returncode or not answer.stdout.strip():  # the tool is there, a working GPU is not
        return None
    return [value.strip() for value in answer.stdout.splitlines()[0].split(",")]


def _versions(packages: Iterable[str]) -> dict[str, str]:
    versions = {"python": platform.python_version()}
    for package in (*packages, "numpy"):
        with suppress(importlib.metadata.PackageNotFoundError):
            versions.setdefault(library_name(package), importlib.metadata.version(package))
    return versions
