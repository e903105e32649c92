"""A runtime that counts how many calls are inside it at once."""

from __future__ import annotations

import threading
import time

import numpy as np

from artifact.records import Logits
from artifact.runtimes.base import Runtime
from core.preprocess import Pixels


class Counting(Runtime):
    """Answers slowly and remembers how many calls were inside it at once."""

    name = "counting"

    def __init__(self, parallel: bool) -> None:
        self.parallel = parallel
        self.inside = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, pixels: Pixels) -> Logits:
        with self._lock:
            self.inside += 1
            self.most = max(self.most, self.inside)
        time.sleep(0.05)
        with self._lock:
            self.inside -= 1
        return np.zeros((len(pixels), 3), dtype=np.float32)

    def close(self) -> None:
        pass
