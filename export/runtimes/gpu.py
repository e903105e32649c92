"""Whether this machine has an NVIDIA GPU, asked of the driver itself. No torch here."""

from __future__ import annotations

import ctypes

from export.runtimes.base import RuntimeUnavailable


def require_gpu(runtime: str) -> None:
    """Raises RuntimeUnavailable, on behalf of ``runtime``, unless the driver reports a GPU.

    Source: CUDA driver API, cuInit and cuDeviceGetCount (0 means success).
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        raise RuntimeUnavailable(
            f"{runtime}: no NVIDIA driver on this machine (libcuda.so.1 not found)"
        ) from None
    count = ctypes.c_int()
    status = driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count))
    if status or not count.value:
        raise RuntimeUnavailable(
            f"{runtime}: the NVIDIA driver reports no usable GPU (CUDA error {status}, "
            f"{count.value} devices)"
        )
