"""A GPU that is not there: its driver, and ``cuda.bindings.runtime`` with host memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import IntEnum
from typing import Any


class FakeDriver:
    """libcuda.so.1, as far as it is asked; ``failing`` maps a function to the status it answers."""

    def __init__(self) -> None:
        self.capability = (8, 6)
        self.cuda = 13000
        self.count = 1
        self.failing: dict[str, int] = {}

    def cuInit(self, flags: int) -> int:  # noqa: N802
        return self.failing.get("cuInit", 0)

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802
        return self._answer("cuDeviceGetCount", count, self.count)

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:  # noqa: N802
        return self._answer("cuDeviceGet", device, ordinal)

    def cuDeviceGetName(self, name: Any, size: int, device: int) -> int:  # noqa: N802
        name.value = b"a GPU"
        return self.failing.get("cuDeviceGetName", 0)

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: int) -> int:  # noqa: N802
        return self._answer("cuDeviceGetAttribute", value, self.capability[attribute - 75])

    def cuDriverGetVersion(self, version: Any) -> int:  # noqa: N802
        return self._answer("cuDriverGetVersion", version, self.cuda)

    def _answer(self, function: str, where: Any, value: int) -> int:
        where._obj.value = value
        return self.failing.get(function, 0)


class FakeCuda:
    """``cuda.bindings.runtime``, which answers (status, value); ``failing`` holds names of calls.

    ``held`` is what was allocated or created and not freed yet. Work takes ``work_ms`` on the clock
    that events and :meth:`perf_counter` see; ``astray``, it is on another stream, and ends when the
    device is waited for.
    """

    cudaStreamCaptureMode = IntEnum(  # noqa: N815
        "cudaStreamCaptureMode", {"cudaStreamCaptureModeThreadLocal": 1}
    )
    cudaError_t = IntEnum("cudaError_t", {"cudaSuccess": 0, "cudaErrorUnknown": 999})  # noqa: N815
    cudaMemcpyKind = IntEnum(  # noqa: N815
        "cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2}
    )

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.held: dict[int, Any] = {}
        self.work_ms, self.astray = 2.0, False
        self._now, self._left = 0.0, 0
        self._events: dict[int, float] = {}
        self._captured: list[Callable[[], object]] | None = None

    def perf_counter(self) -> float:
        """Returns the time, in seconds: only the work of the GPU takes any."""
        return self._now / 1e3

    def put(self, work: Callable[[], object]) -> None:
        """Does what a kernel does: runs, or is captured."""
        if self._captured is not None:
            self._captured.append(work)
            return
        work()
        if self.astray:
            self._left += 1
        else:
            self._now += self.work_ms

    def cudaStreamCreate(self) -> tuple[Any, ...]:  # noqa: N802
        return self._hold("cudaStreamCreate", object())

    def cudaMalloc(self, size: int) -> tuple[Any, ...]:  # noqa: N802
        return self._hold("cudaMalloc", ctypes.create_string_buffer(size))

    def cudaMemcpyAsync(  # noqa: N802
        self, dst: int, src: int, count: int, kind: IntEnum, stream: int
    ) -> tuple[Any, ...]:
        assert stream in self.held
        device = dst if kind == self.cudaMemcpyKind.cudaMemcpyHostToDevice else src
        assert count <= len(self.held[device])
        ctypes.memmove(dst, src, count)
        return self._status("cudaMemcpyAsync")

    def cudaStreamSynchronize(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        assert stream in self.held
        return self._status("cudaStreamSynchronize")

    def cudaFree(self, devPtr: int) -> tuple[Any, ...]:  # noqa: N802, N803
        del self.held[devPtr]
        return self._status("cudaFree")

    def cudaStreamDestroy(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        del self.held[stream]
        return self._status("cudaStreamDestroy")

    def cudaMemsetAsync(  # noqa: N802
        self,
        devPtr: int,  # noqa: N803
        value: int,
        count: int,
        stream: int,
    ) -> tuple[Any, ...]:
        assert stream in self.held
        assert count <= len(self.held[devPtr])
        ctypes.memset(devPtr, value, count)
        return self._status("cudaMemsetAsync")

    def cudaDeviceSynchronize(self) -> tuple[Any, ...]:  # noqa: N802
        self._now += self._left * self.work_ms
        self._left = 0
        return self._status("cudaDeviceSynchronize")

    def cudaEventCreate(self) -> tuple[Any, ...]:  # noqa: N802
        return self._hold("cudaEventCreate", object())

    def cudaEventRecord(self, event: int, stream: int) -> tuple[Any, ...]:  # noqa: N802
        assert stream in self.held
        self._events[event] = self._now
        return self._status("cudaEventRecord")

    def cudaEventSynchronize(self, event: int) -> tuple[Any, ...]:  # noqa: N802
        assert event in self._events
        return self._status("cudaEventSynchronize")

    def cudaEventElapsedTime(self, start: int, end: int) -> tuple[Any, ...]:  # noqa: N802
        status = self._status("cudaEventElapsedTime")
        return (*status, self._events[end] - self._events[start])

    def cudaEventDestroy(self, event: int) -> tuple[Any, ...]:  # noqa: N802
        del self.held[event]
        return self._status("cudaEventDestroy")

    def cudaStreamBeginCapture(self, stream: int, mode: IntEnum) -> tuple[Any, ...]:  # noqa: N802
        assert stream in self.held
        assert self._captured is None
        if "cudaStreamBeginCapture" not in self.failing:
            self._captured = []
        return self._status("cudaStreamBeginCapture")

    def cudaStreamEndCapture(self, stream: int) -> tuple[Any, ...]:  # noqa: N802
        captured, self._captured = self._captured, None
        return self._hold("cudaStreamEndCapture", captured)

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple[Any, ...]:  # noqa: N802
        return self._hold("cudaGraphInstantiate", list(self.held[graph]))

    def cudaGraphLaunch(self, graphExec: int, stream: int) -> tuple[Any, ...]:  # noqa: N802, N803
        assert stream in self.held
        for work in self.held[graphExec]:
            self.put(work)
        return self._status("cudaGraphLaunch")

    def cudaGraphDestroy(self, graph: int) -> tuple[Any, ...]:  # noqa: N802
        del self.held[graph]
        return self._status("cudaGraphDestroy")

    def cudaGraphExecDestroy(self, graphExec: int) -> tuple[Any, ...]:  # noqa: N802, N803
        del self.held[graphExec]
        return self._status("cudaGraphExecDestroy")

    def _hold(self, call: str, thing: Any) -> tuple[Any, ...]:
        if call in self.failing:
            return self._status(call)
        handle = ctypes.addressof(thing) if isinstance(thing, ctypes.Array) else id(thing)
        self.held[handle] = thing
        return (*self._status(call), handle)

    def _status(self, call: str) -> tuple[Any, ...]:
        failed = call in self.failing
        return (self.cudaError_t.cudaErrorUnknown if failed else self.cudaError_t.cudaSuccess,)
