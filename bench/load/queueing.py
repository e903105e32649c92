"""The latency of an ideal server, by simulation of its queue."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from bench.load.loops import fixed_times, poisson_times
from bench.load.turns import Arrivals

_REQUESTS = 20_000


def ideal_tail(arrivals: Arrivals, share: float, cores: int) -> float:
    """Returns p99 over p50 of the latency of the best server there can be.

    First come, first served, by ``cores`` that take the same time for every image, at ``share`` of
    what they can answer (below 1). Source: the queues D/D/c and M/D/c, simulated.
    """
    rate = share * cores  # a core answers one image per unit of time
    seconds = _REQUESTS / rate
    times = fixed_times(rate, seconds)
    if arrivals == "poisson":
        times = poisson_times(rate, seconds, seed=0)
    low, high = np.percentile(_latencies(times, cores), [50, 99])
    return float(high / low)


def _latencies(times: Sequence[float], cores: int) -> list[float]:
    free = [0.0] * cores  # when each is idle again
    found = []
    for due in times:
        ready = max(due, heapq.heappop(free)) + 1.0
        heapq.heappush(free, ready)
        found.append(ready - due)
    return found
