"""Describes the NVIDIA GPU of this machine, using the CUDA driver API."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass

from artifact.runtimes.base import RuntimeUnavailable

# CUDA driver API: CUdevice_attribute.
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76


@dataclass(frozen=True, kw_only=True, slots=True)
class Gpu:
    """The first NVIDIA GPU.

    Attributes:
        name: product name, such as ``NVIDIA RTX A4000``.
        capability: compute capability, such as ``8.6``.
        driver: CUDA version that the driver supports, such as ``13.0``.
    """

    name: str
    capability: str
    driver: str


def require_gpu(runtime: str) -> Gpu:
    """Returns the first GPU.

    Args:
        runtime: name of the runtime that needs it; the error message begins with it.

    Raises:
        RuntimeUnavailable: there is no driver, it fails, or it reports no GPU.

    Source: CUDA driver API; each call returns a status, where 0 means success.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise RuntimeUnavailable(
            f"{runtime}: no NVIDIA driver on this machine (libcuda.so.1 not found)"
        ) from None

    def do(function: str, *arguments: object) -> None:
        if status := getattr(driver, function)(*arguments):
            raise RuntimeUnavailable(
                f"{runtime}: the NVIDIA driver reports no usable GPU "
                f"({function} answers CUDA error {status}); does nvidia-smi list one?"
            )

    def number(function: str, *arguments: object) -> int:
        value = ctypes.c_int()
        do(function, ctypes.byref(value), *arguments)
        return value.value

    do("cuInit", 0)
    if not number("cuDeviceGetCount"):
        raise RuntimeUnavailable(
            f"{runtime}: the NVIDIA driver reports no GPU; is it hidden by CUDA_VISIBLE_DEVICES?"
        )
    device = number("cuDeviceGet", 0)
    name = ctypes.create_string_buffer(256)
    do("cuDeviceGetName", name, len(name), device)
    major = number("cuDeviceGetAttribute", _CAPABILITY_MAJOR, device)
    minor = number("cuDeviceGetAttribute", _CAPABILITY_MINOR, device)
    cuda = number("cuDriverGetVersion")  # 13020 is 13.2
    return Gpu(
        name=name.value.decode(),
        capability=f"{major}.{minor}",
        driver=f"{cuda // 1000}.{cuda % 1000 // 10}",
    )
