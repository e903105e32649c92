"""Measures the most efficient batch size on this machine, when a server starts."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

from artifact.runtimes.base import Runtime
from core.preprocess import Pixels

MOST_ON_CPU = 4  # larger batches only add waiting time: a CPU gains nothing
MOST_ON_GPU = 64
_ROUNDS = 2
_SECONDS = 0.3  # time limit of the measurement, as it delays the start
_WORTH = 1.05  # factor on the lowest cost per image


def best_batch_size(runtime: Runtime, pixels: Pixels, most: int) -> int:
    """Returns the largest batch size whose cost per image is within 5 % of the lowest.

    Sizes are powers of two up to ``most``, measured interleaved after one untimed call each, for
    about 0.3 s in total; larger sizes are skipped when the time is up.

    Args:
        runtime: accepts any number of images up to ``most``.
        pixels: at least one image, uint8 (N, H, W, 3), repeated as needed.
        most: largest allowed size.
    """
    batches = [pixels[[index % len(pixels) for index in range(size)]] for size in _sizes(most)]
    costs: dict[int, float] = {}
    spent = 0.0
    for batch in batches:
        runtime.prepare(len(batch))
        began = perf_counter()
        runtime(batch)
        took = perf_counter() - began
        spent += took
        if costs and spent + _ROUNDS * took > _SECONDS:
            break
        costs[len(batch)] = took / len(batch)
    for _ in range(_ROUNDS):
        for batch in batches[: len(costs)]:
            began = perf_counter()
            runtime(batch)
            costs[len(batch)] = min(costs[len(batch)], (perf_counter() - began) / len(batch))
    least = min(costs.values())
    return max(size for size, cost in costs.items() if cost <= _WORTH * least)


def _sizes(most: int) -> Iterator[int]:
    size = 1
    while size <= most:
        yield size
        size *= 2
