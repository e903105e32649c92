"""A GPU that is not there: its driver, and ``cuda.bindings.runtime`` with host memory."""

from __future__ import annotations

import ctypes
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

    ``held`` is what was allocated or created and not freed yet.
    """

    cudaError_t = IntEnum("cudaError_t", {"cudaSuccess": 0, "cudaErrorUnknown": 999})  # noqa: N815
    cudaMemcpyKind = IntEnum(  # noqa: N815
        "cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2}
    )

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.held: dict[int, Any] = {}

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

    def _hold(self, call: str, thing: Any) -> tuple[Any, ...]:
        if call in self.failing:
            return self._status(call)
        handle = ctypes.addressof(thing) if isinstance(thing, ctypes.Array) else id(thing)
        self.held[handle] = thing
        return (*self._status(call), handle)

    def _status(self, call: str) -> tuple[Any, ...]:
        failed = call in self.failing
        return (self.cudaError_t.cudaErrorUnknown if failed else self.cudaError_t.cudaSuccess,)
