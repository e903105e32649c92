"""The memory of this process: how much it holds, and giving back what is free."""

from __future__ import annotations

import ctypes
import resource
from pathlib import Path

_STATM = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Returns the bytes of memory that this process holds; 0 where the system does not tell."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * resource.getpagesize()


def give_back() -> None:
    """Gives memory that is free back to the system; glibc else keeps much of it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
