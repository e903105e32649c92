from __future__ import annotations

import numpy as np
import pytest

from bench.load.sections import _latencies, ideal_tail


def test_even_arrivals_never_wait() -> None:
    assert ideal_tail("fixed", 0.9, 2) == pytest.approx(1.0)


def test_random_arrivals_wait_for_each_other() -> None:
    tails = [ideal_tail("poisson", share, 2) for share in (0.5, 0.7, 0.9)]
    assert tails == sorted(tails)
    assert tails[0] > 1.5
    assert ideal_tail("poisson", 0.7, 16) < tails[1]  # more cores level chance out


def test_one_core_waits_as_theory_says() -> None:
    """Pollaczek and Khinchine: a mean wait of share / (2 (1 - share)) service times."""
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.exponential(1 / 0.7, 200_000)).tolist()
    assert np.mean(_latencies(times, 1)) - 1 == pytest.approx(0.7 / 0.6, rel=0.05)


def test_first_come_first_served() -> None:
    assert _latencies([0.0, 0.1, 0.2, 3.0], 2) == pytest.approx([1.0, 1.0, 1.8, 1.0])
