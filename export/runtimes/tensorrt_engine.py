"""A TensorRT or TensorRT for RTX engine on an NVIDIA GPU. No torch here."""

from __future__ import annotations

import importlib
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, cast

import numpy as np

from export.artifact import Artifact
from export.fingerprint import EngineMismatch, mismatches
from export.flavour import FlavourName, create, import_flavour, make_logger
from export.records import Logits
from export.runtimes.base import Runtime, RuntimeUnavailable, check_pixels
from export.runtimes.gpu import require_gpu
from export.to_tensorrt import rebuild_engine
from models.preprocess import Pixels


class EngineRuntime(Runtime):
    """An engine with one execution context, buffers for its largest batch, and one stream."""

    parallel = False  # a call fills the buffers

    def __init__(self, name: str, artifact: Artifact, engine: bytes) -> None:
        assert artifact.fingerprint is not None, "an engine has a fingerprint"
        trt = import_flavour(cast(FlavourName, artifact.format))
        self.name = name
        self._artifact = artifact
        self._profiles = artifact.fingerprint.profiles
        self._profile = 0  # what a first context starts with
        self._cuda = _import_cuda(name)
        self._logger = make_logger(trt)
        with ExitStack() as own:  # what was acquired is freed if a later step fails
            self._runtime = self._need(create(trt.Runtime, self._logger), "cannot start TensorRT")
            self._engine = self._need(
                self._runtime.deserialize_cuda_engine(engine), f"cannot load {artifact.model_file}"
            )
            self._stream = self._do(self._cuda.cudaStreamCreate())
            own.callback(lambda: self._do(self._cuda.cudaStreamDestroy(self._stream)))
            largest = artifact.batch_range[1]
            side, classes = artifact.preprocess.crop, len(artifact.labels)
            self._pixels = self._allocate(own, largest * side * side * 3)
            self._logits = self._allocate(own, largest * classes * 4)
            self._context: Any = self._need(
                self._engine.create_execution_context(), "cannot start an execution context"
            )
            self._set_addresses()
            self._own = own.pop_all()

    def __call__(self, pixels: Pixels) -> Logits:
        """Returns float32 logits (N, C) of uint8 pixels (N, H, W, 3), one call at a time."""
        assert self._context is not None, "called after the runtime was closed"
        check_pixels(pixels, self._artifact)
        pixels = np.ascontiguousarray(pixels)
        logits = np.empty((len(pixels), len(self._artifact.labels)), dtype=np.float32)
        cuda, kinds, stream = self._cuda, self._cuda.cudaMemcpyKind, self._stream
        up, down = kinds.cudaMemcpyHostToDevice, kinds.cudaMemcpyDeviceToHost
        self._choose_profile(len(pixels))
        shaped = self._context.set_input_shape(self._artifact.input.name, pixels.shape)
        self._need(shaped, f"refuses pixels of {list(pixels.shape)}")
        self._do(cuda.cudaMemcpyAsync(self._pixels, pixels.ctypes.data, pixels.nbytes, up, stream))
        self._need(self._context.execute_async_v3(int(stream)), "cannot run the engine")
        self._do(
            cuda.cudaMemcpyAsync(logits.ctypes.data, self._logits, logits.nbytes, down, stream)
        )
        self._do(cuda.cudaStreamSynchronize(stream))
        return logits

    def close(self) -> None:
        """Frees what the runtime holds; no call may follow."""
        self._context = self._engine = self._runtime = None  # each lives on the next one
        self._own.close()

    def _choose_profile(self, batch: int) -> None:
        """Switches to the profile of exactly ``batch``, or to the one for all batches."""
        fits = (i for i, (low, _, high) in enumerate(self._profiles) if low == high == batch)
        index = next(fits, 0)
        if index == self._profile:
            return
        # On the stream that runs the engine, so that the one waits for the other. The shape must
        # be set after it; that the addresses outlive it is promised nowhere.
        switched = self._context.set_optimization_profile_async(index, int(self._stream))
        self._need(switched, f"cannot switch to profile {index}, {self._profiles[index]}")
        self._profile = index
        self._set_addresses()

    def _set_addresses(self) -> None:
        for end, buffer in (
            (self._artifact.input, self._pixels),
            (self._artifact.output, self._logits),
        ):
            bound = self._context.set_tensor_address(end.name, int(buffer))
            self._need(bound, f"has no tensor {end.name}")

    def _allocate(self, own: ExitStack, size: int) -> Any:
        """Returns ``size`` bytes on the GPU that ``own`` will free."""
        buffer = self._do(self._cuda.cudaMalloc(size))
        own.callback(lambda: self._do(self._cuda.cudaFree(buffer)))
        return buffer

    def _do(self, answer: tuple[Any, ...]) -> Any:
        """Returns the value of a CUDA call's (status, value) answer."""
        if answer[0] != self._cuda.cudaError_t.cudaSuccess:
            raise RuntimeUnavailable(f"{self.name}: CUDA answers {answer[0]}")
        return answer[1] if len(answer) > 1 else None

    def _need(self, answer: Any, otherwise: str) -> Any:
        """Returns ``answer``, unless it is how TensorRT says that it failed: None or False."""
        if answer is None or answer is False:
            raise RuntimeUnavailable(f"{self.name} {otherwise}: {self._logger.reason()}")
        return answer


def load(artifact: Artifact, *, threads: int | None = None, rebuild: bool = False) -> EngineRuntime:
    """Returns an engine ready to run on the first GPU; ``threads`` is of no use there.

    With ``rebuild``, one that does not fit this machine is built anew, in memory, from the graph
    beside it.

    Raises:
        EngineMismatch: the engine does not fit this machine, and ``rebuild`` was not asked for.
        RuntimeUnavailable: no GPU, no TensorRT of that flavour, or an engine it cannot load.
    """
    name = artifact.format.replace("_", "-")
    gpu = require_gpu(name)
    version = import_flavour(cast(FlavourName, artifact.format)).__version__
    wrong = mismatches(artifact, version, gpu)
    if not wrong:
        return EngineRuntime(name, artifact, artifact.model_file.read_bytes())
    if not rebuild:
        raise EngineMismatch(artifact, wrong)
    engine, fingerprint = rebuild_engine(artifact)
    artifact = replace(artifact, fingerprint=fingerprint)
    if wrong := mismatches(artifact, version, gpu):
        raise RuntimeUnavailable(f"{name}: an engine built here does not run here: {wrong}")
    return EngineRuntime(name, artifact, engine)


def _import_cuda(runtime: str) -> Any:
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as error:
        raise RuntimeUnavailable(f"{runtime}: {error}; pip install cuda-bindings") from None
