"""Counts the usable cores, and restricts a process to some of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from core.cgroups import cpu_quota


def usable_cores() -> int:
    """Returns how many cores this process may keep busy, at least 1.

    A container's limit of CPU time is rounded down to whole cores: with more threads than that,
    the kernel throttles all of them for a part of each period of 100 ms.
    """
    if hasattr(os, "sched_getaffinity"):  # Linux: the process may be restricted to some cores
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


@contextmanager
def confined(count: int) -> Iterator[None]:
    """Restricts this thread, and threads and processes it starts, to ``count`` of its cores.

    If it has fewer cores, it keeps all of them. Does nothing on systems other than Linux.
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
