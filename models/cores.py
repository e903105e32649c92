"""How many cores there are to use. No torch here."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Returns how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # Linux: the process may be confined to some
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
