"""Counts the usable cores, and confines a process to some of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from core.cgroups import cpu_quota


def usable_cores() -> int:
    """Returns how many cores this process may run on, and keep busy: at least one.

    A container's limit of CPU time counts, its whole cores: with more threads than that all of
    them stand still for a part of each period, 100 ms long. With less than one core one thread is
    as few as there can be.
    """
    if hasattr(os, "sched_getaffinity"):  # Linux: the process may be confined to some
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = cpu_quota()
    return cores if quota is None else max(1, min(cores, int(quota)))


@contextmanager
def confined(count: int) -> Iterator[None]:
    """Confines this thread, and the threads and processes it starts, to ``count`` of its cores.

    To all of its cores if they are fewer; elsewhere than on Linux it does nothing.
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
