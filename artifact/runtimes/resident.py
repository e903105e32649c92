"""A batch that stays on the GPU, and the work on it, timed by the GPU itself."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np

from artifact.golden import relative_error
from artifact.records import Logits
from artifact.runtimes.base import Runtime, RuntimeUnavailable
from artifact.runtimes.cuda import Cuda, Stopwatch
from core.preprocess import Pixels

_NAN = 0xFF  # four such bytes are a float32 that is not a number
_TRIALS = 5
# Work that is still running after the second event was on another stream. Asking the GPU whether
# there is some takes microseconds.
_LEFT_SHARE, _LEFT_SECONDS = 0.1, 1e-4


class Resident:
    """Pixels and logits of a batch on the GPU; :meth:`elapse` runs and times what is between them.

    Args:
        cuda: the CUDA runtime.
        stream: that the work is put on.
        launch: puts the work on the stream and returns at once.
        shape: of the logits, (N, C).
        address: where the logits of the last launch are, float32, on the GPU.
        own: frees all of it; taken over here, and freed at once on an exception.
    """

    def __init__(
        self,
        cuda: Cuda,
        stream: Any,
        launch: Callable[[], object],
        shape: tuple[int, int],
        address: Callable[[], Any],
        own: ExitStack,
    ) -> None:
        self._cuda, self._stream = cuda, stream
        self._launch = launch
        self._shape, self._address = shape, address
        with own:
            self._watch = Stopwatch(cuda, stream, own)
            self._own = own.pop_all()

    def elapse(self) -> float:
        """Returns the seconds between two CUDA events around one run, after it has ended."""
        return self._watch.time(self._launch)

    def logits(self) -> Logits:
        """Returns a copy on the host of what the last run answered, float32 (N, C)."""
        return self._cuda.download(self._stream, self._address(), self._shape)

    def spoil(self) -> None:
        """Fills the logits with NaN, so that an old answer cannot pass for a new one.

        Needs a run before it.
        """
        cuda, size = self._cuda, 4 * self._shape[0] * self._shape[1]
        cuda.do(cuda.api.cudaMemsetAsync(self._address(), _NAN, size, self._stream))
        cuda.do(cuda.api.cudaStreamSynchronize(self._stream))

    def seconds_left(self) -> float:
        """Returns how long the GPU is still busy after the second event of a run."""
        self.elapse()
        start = time.perf_counter()
        self._cuda.do(self._cuda.api.cudaDeviceSynchronize())
        return time.perf_counter() - start

    def close(self) -> None:
        """Frees what it holds; no call may follow."""
        # What they hold, such as a session, still knows the stream.
        self._launch = self._address = _closed
        self._own.close()


def _closed() -> None:
    raise AssertionError("called after it was closed")


class GpuRuntime(Runtime):
    """A runtime on an NVIDIA GPU."""

    @abstractmethod
    def resident(self, pixels: Pixels, *, graph: bool = False) -> Resident:
        """Returns uint8 ``pixels`` (N, H, W, 3) on the GPU, ready to be inferred there.

        It must be closed before the runtime is.

        Args:
            pixels: the batch.
            graph: whether the work is captured once as a CUDA graph, and each run replays it.

        Raises:
            RuntimeUnavailable: CUDA refuses, or the runtime cannot capture its work.
        """


def check_resident(resident: Resident, name: str, expected: Logits, limit: float) -> None:
    """Returns None if ``resident`` computes ``expected``, and its events enclose all of its work.

    Args:
        resident: what is to be timed.
        name: of the runtime; every error begins with it.
        expected: the logits of the same pixels, from the host.
        limit: largest relative error.

    Raises:
        RuntimeUnavailable: it computes something else, or on a stream without the events.
    """
    resident.elapse()
    resident.spoil()
    seconds = [resident.elapse() for _ in range(_TRIALS)]
    logits = resident.logits()
    if not np.isfinite(logits).all() or relative_error(logits, expected) > limit:
        raise RuntimeUnavailable(
            f"{name}: what stays on the GPU is not answered as what comes from the host is; "
            "it is not timed"
        )
    left, allowed = min(resident.seconds_left() for _ in range(_TRIALS)), float(np.median(seconds))
    if left > max(_LEFT_SECONDS, _LEFT_SHARE * allowed):
        raise RuntimeUnavailable(
            f"{name}: the GPU works on for {left * 1e3:.2f} ms after the event that should end "
            f"{allowed * 1e3:.2f} ms of work: some of it is on another stream; it is not timed"
        )
