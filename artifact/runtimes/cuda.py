"""The CUDA runtime API: checked calls, memory management, and timing with events."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from artifact.runtimes.base import RuntimeUnavailable

# cudaEventElapsedTime returns milliseconds.
_MS = 1e-3


class Cuda:
    """The CUDA runtime API with checked calls.

    Attributes:
        name: name of the calling runtime; every error message begins with it.
        api: ``cuda.bindings.runtime``.

    Raises:
        RuntimeUnavailable: cuda-bindings is not installed.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            self.api: Any = importlib.import_module("cuda.bindings.runtime")
        except ImportError as error:
            raise RuntimeUnavailable(f"{name}: {error}; pip install cuda-bindings") from None

    def do(self, answer: tuple[Any, ...]) -> Any:
        """Checks the status of a (status, value) result; returns the value, None if absent."""
        if answer[0] != self.api.cudaError_t.cudaSuccess:
            raise RuntimeUnavailable(f"{self.name}: CUDA answers {answer[0]}")
        return answer[1] if len(answer) > 1 else None

    def allocate(self, own: ExitStack, size: int) -> Any:
        """Allocates ``size`` bytes on the GPU, which ``own`` will free; returns the address."""
        return self._hold(own, self.api.cudaMalloc(size), self.api.cudaFree)

    def download(self, stream: Any, source: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Copies float32 values at ``source`` on the GPU to the host and returns them.

        It waits until all work on ``stream`` is done.
        """
        copy = np.empty(shape, dtype=np.float32)
        down = self.api.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.do(self.api.cudaMemcpyAsync(copy.ctypes.data, source, copy.nbytes, down, stream))
        self.do(self.api.cudaStreamSynchronize(stream))
        return copy

    def stream(self, own: ExitStack) -> Any:
        """Returns a stream that ``own`` will destroy."""
        return self._hold(own, self.api.cudaStreamCreate(), self.api.cudaStreamDestroy)

    def event(self, own: ExitStack) -> Any:
        """Returns an event that ``own`` will destroy."""
        return self._hold(own, self.api.cudaEventCreate(), self.api.cudaEventDestroy)

    def graph(
        self, own: ExitStack, stream: Any, work: Callable[[], object]
    ) -> Callable[[], object]:
        """Captures ``work`` as a CUDA graph, without running it; ``own`` will destroy the graph.

        Returns a function that replays it on ``stream``.
        """
        api = self.api
        mode = api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.do(api.cudaStreamBeginCapture(stream, mode))
        try:
            work()
        finally:  # otherwise later work on the stream would be captured too
            captured = api.cudaStreamEndCapture(stream)
        template = self._hold(own, captured, api.cudaGraphDestroy)
        graph = self._hold(own, api.cudaGraphInstantiate(template, 0), api.cudaGraphExecDestroy)
        return lambda: self.do(api.cudaGraphLaunch(graph, stream))

    def _hold(self, own: ExitStack, answer: tuple[Any, ...], free: Callable[[Any], Any]) -> Any:
        thing = self.do(answer)
        own.callback(lambda: self.do(free(thing)))
        return thing


class Stopwatch:
    """Times work on one stream with two events.

    Source: CUDA runtime API, event management: an event is recorded when all work before it on
    its stream is done, with a resolution of about half a microsecond.
    """

    def __init__(self, cuda: Cuda, stream: Any, own: ExitStack) -> None:
        self._cuda = cuda
        self._stream = stream
        self._start, self._stop = cuda.event(own), cuda.event(own)

    def time(self, work: Callable[[], object]) -> float:
        """Runs ``work``, waits for it, and returns its time on the stream in seconds.

        The time starts when the stream is idle, so it includes waiting for launches, as in
        production.
        """
        do, api = self._cuda.do, self._cuda.api
        do(api.cudaEventRecord(self._start, self._stream))
        work()
        do(api.cudaEventRecord(self._stop, self._stream))
        do(api.cudaEventSynchronize(self._stop))
        return float(do(api.cudaEventElapsedTime(self._start, self._stop))) * _MS
