"""Inference of a batch that is resident on the GPU, timed with CUDA events."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import ExitStack
from time import perf_counter
from typing import Any

import numpy as np

from artifact.golden import relative_error
from artifact.records import Logits
from artifact.runtimes.base import Runtime, RuntimeUnavailable
from artifact.runtimes.cuda import Cuda, Stopwatch
from core.preprocess import Pixels

_NAN = 0xFF  # four such bytes are a float32 NaN
_TRIALS = 5
# Work still running after the second event was on another stream. The query itself takes
# microseconds.
_LEFT_SHARE, _LEFT_SECONDS = 0.1, 1e-4


class Resident:
    """Pixels and logits of a batch on the GPU; :meth:`elapse` runs and times the inference.

    Args:
        cuda: the CUDA runtime API.
        stream: stream of the work.
        launch: enqueues the work on the stream and returns at once.
        shape: shape of the logits, (N, C).
        address: returns the GPU address of the last launch's logits, float32.
        own: frees all resources; taken over here, and closed at once on an exception.
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
        """Runs once, waits, and returns the seconds between two CUDA events around the run."""
        return self._watch.time(self._launch)

    def logits(self) -> Logits:
        """Returns the logits of the last run, copied to the host, float32 (N, C)."""
        return self._cuda.download(self._stream, self._address(), self._shape)

    def spoil(self) -> None:
        """Fills the logits with NaN, so that old logits cannot be mistaken for new ones.

        There must have been a run before.
        """
        cuda, size = self._cuda, 4 * self._shape[0] * self._shape[1]
        cuda.do(cuda.api.cudaMemsetAsync(self._address(), _NAN, size, self._stream))
        cuda.do(cuda.api.cudaStreamSynchronize(self._stream))

    def seconds_left(self) -> float:
        """Returns how many seconds the GPU is still busy after the second event of a run."""
        self.elapse()
        start = perf_counter()
        self._cuda.do(self._cuda.api.cudaDeviceSynchronize())
        return perf_counter() - start

    def close(self) -> None:
        """Frees its resources; it must not be used afterwards."""
        # They may refer to a session, which still refers to the stream.
        self._launch = self._address = _closed
        self._own.close()


def _closed() -> None:
    raise AssertionError("called after it was closed")


class GpuRuntime(Runtime):
    """A runtime on an NVIDIA GPU."""

    @abstractmethod
    def resident(self, pixels: Pixels, *, graph: bool = False) -> Resident:
        """Copies uint8 ``pixels`` (N, H, W, 3) to the GPU, ready for inference there.

        The result must be closed before the runtime is.

        Args:
            pixels: the batch.
            graph: whether to capture the work as a CUDA graph, which each run replays.

        Raises:
            RuntimeUnavailable: CUDA fails, or the runtime cannot capture a CUDA graph.
        """


def check_resident(resident: Resident, name: str, expected: Logits, limit: float) -> None:
    """Checks that ``resident`` computes ``expected`` and that its events enclose all of the work.

    Args:
        resident: what will be timed.
        name: name of the runtime; every error message begins with it.
        expected: logits of the same pixels, passed from the host.
        limit: largest relative error.

    Raises:
        RuntimeUnavailable: the logits differ, or work runs on a stream without the events.
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
