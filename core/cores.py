"""Counts the usable cores, and confines a process to some of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


def usable_cores() -> int:
    """Returns how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):  # Linux: the process may be confined to some
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextmanager
def confined(count: int) -> Iterator[None]:
    """Keeps this thread, and the threads and processes it starts, on ``count`` of its cores.

    All that it may use if these are fewer, or if this is not Linux.
    """
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(cores)[-count:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)
