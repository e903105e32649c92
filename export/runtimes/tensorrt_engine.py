"""A TensorRT or TensorRT for RTX engine on an NVIDIA GPU. No torch here."""

from __future__ import annotations

import importlib
from typing import Any, cast

import numpy as np

from export.artifact import Artifact
from export.records import Logits
from export.runtimes.base import Runtime, RuntimeUnavailable, check_pixels
from export.runtimes.gpu import require_gpu
from export.to_tensorrt import FlavourName, import_flavour, make_logger
from models.preprocess import Pixels


class EngineRuntime(Runtime):
    """An engine with one execution context, buffers for its largest batch, and one stream."""

    parallel = False  # a call fills the buffers

    def __init__(self, name: str, artifact: Artifact) -> None:
        trt = import_flavour(cast(FlavourName, artifact.format))
        self.name = name
        self._artifact = artifact
        self._cuda = _import_cuda(name)
        self._logger = make_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(artifact.model_file.read_bytes())
        if self._engine is None:
            raise RuntimeUnavailable(
                f"{name}: cannot load {artifact.model_file} ({'; '.join(self._logger.errors)}); "
                "an engine is tied to its TensorRT version and GPU: export it again here"
            )
        self._context = self._engine.create_execution_context()
        self._stream = self._do(self._cuda.cudaStreamCreate())
        largest = artifact.batch_range[1]
        side, classes = artifact.preprocess.crop, len(artifact.labels)
        self._pixels = self._do(self._cuda.cudaMalloc(largest * side * side * 3))
        self._logits = self._do(self._cuda.cudaMalloc(largest * classes * 4))
        self._context.set_tensor_address(artifact.input.name, int(self._pixels))
        self._context.set_tensor_address(artifact.output.name, int(self._logits))

    def __call__(self, pixels: Pixels) -> Logits:
        """Returns float32 logits (N, C) of uint8 pixels (N, H, W, 3), one call at a time."""
        check_pixels(pixels, self._artifact)
        pixels = np.ascontiguousarray(pixels)
        logits = np.empty((len(pixels), len(self._artifact.labels)), dtype=np.float32)
        cuda, kinds = self._cuda, self._cuda.cudaMemcpyKind
        if not self._context.set_input_shape(self._artifact.input.name, pixels.shape):
            raise self._error(f"refuses pixels of {list(pixels.shape)}")
        up, down = kinds.cudaMemcpyHostToDevice, kinds.cudaMemcpyDeviceToHost
        self._do(
            cuda.cudaMemcpyAsync(self._pixels, pixels.ctypes.data, pixels.nbytes, up, self._stream)
        )
        if not self._context.execute_async_v3(int(self._stream)):
            raise self._error("cannot run the engine")
        self._do(
            cuda.cudaMemcpyAsync(
                logits.ctypes.data, self._logits, logits.nbytes, down, self._stream
            )
        )
        self._do(cuda.cudaStreamSynchronize(self._stream))
        return logits

    def close(self) -> None:
        """Frees what the runtime holds; no call may follow."""
        self._do(self._cuda.cudaFree(self._pixels))
        self._do(self._cuda.cudaFree(self._logits))
        self._do(self._cuda.cudaStreamDestroy(self._stream))
        self._context = self._engine = self._runtime = None

    def _do(self, answer: tuple[Any, ...]) -> Any:
        """Returns the value of a CUDA call's (status, value) answer."""
        if answer[0] != self._cuda.cudaError_t.cudaSuccess:
            raise self._error(str(answer[0]))
        return answer[1] if len(answer) > 1 else None

    def _error(self, what: str) -> RuntimeUnavailable:
        return RuntimeUnavailable(f"{self.name}: {'; '.join([what, *self._logger.errors])}")


def load(artifact: Artifact, *, threads: int | None = None) -> EngineRuntime:
    """Returns an engine ready to run on the first GPU; ``threads`` is of no use there.

    Raises:
        RuntimeUnavailable: no GPU, no TensorRT of that flavour, or an engine it cannot load.
    """
    name = artifact.format.replace("_", "-")
    require_gpu(name)
    return EngineRuntime(name, artifact)


def _import_cuda(runtime: str) -> Any:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise RuntimeUnavailable(f"{runtime}: {error}; pip install cuda-bindings") from None
