"""Measures at start how many images in one call pay on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter

from artifact.runtimes.base import Runtime
from core.preprocess import Pixels

MOST_ON_CPU = 4  # more only lets the others wait: a CPU gains nothing by it
MOST_ON_GPU = 64
_ROUNDS = 2
_SECONDS = 0.3  # of measuring: a service has to get ready
_WORTH = 1.05  # times the least cost of an image


def best_batch_size(runtime: Runtime, pixels: Pixels, most: int) -> int:
    """Returns the largest size whose images cost at most 5 % more than the cheapest.

    Sizes are powers of two up to ``most``, interleaved after one untimed call each, as many
    of them as can be measured in a third of a second: a network that is too slow for that gains
    nothing that its own time would not hide.

    Args:
        runtime: takes any number of images up to ``most``.
        pixels: at least one image, uint8 (N, H, W, 3), repeated as needed.
        most: largest size allowed.
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
