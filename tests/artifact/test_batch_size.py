from __future__ import annotations

import numpy as np
import pytest

from artifact.records import Logits
from artifact.runtimes import batch_size
from artifact.runtimes.base import Runtime
from artifact.runtimes.batch_size import best_batch_size
from core.preprocess import Pixels


class Timed(Runtime):
    """Takes as long as it is told, by a clock of its own."""

    name = "timed"

    def __init__(self, cost: dict[int, float]) -> None:
        self.cost = cost
        self.now = 0.0
        self.sizes: list[int] = []

    def __call__(self, pixels: Pixels) -> Logits:
        self.sizes.append(len(pixels))
        self.now += self.cost[len(pixels)]
        return np.zeros((len(pixels), 2), dtype=np.float32)

    def close(self) -> None:
        pass


PIXELS = np.zeros((3, 2, 2, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("cost", "most", "best"),
    [
        ({1: 0.010, 2: 0.020, 4: 0.041}, 4, 4),  # nothing gained, nothing lost
        ({1: 0.010, 2: 0.022, 4: 0.044}, 4, 1),  # a tenth is lost
        ({1: 0.010, 2: 0.018, 4: 0.044}, 4, 2),
        ({1: 0.004, 2: 0.004, 4: 0.004, 8: 0.004}, 8, 8),  # a GPU
        ({1: 0.010, 2: 0.020}, 3, 2),  # powers of two
        ({1: 0.010}, 1, 1),
        ({1: 9.0}, 1, 1),  # however slow
    ],
)
def test_the_largest_that_pays(
    monkeypatch: pytest.MonkeyPatch, cost: dict[int, float], most: int, best: int
) -> None:
    runtime = Timed(cost)
    monkeypatch.setattr(batch_size, "perf_counter", lambda: runtime.now)
    assert best_batch_size(runtime, PIXELS, most) == best
    assert set(runtime.sizes) == set(cost)


def test_a_slow_network_does_not_hold_up_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = Timed({1: 0.1, 2: 0.2, 4: 0.4})
    monkeypatch.setattr(batch_size, "perf_counter", lambda: runtime.now)
    assert best_batch_size(runtime, PIXELS, 4) == 1
    assert 4 not in runtime.sizes
