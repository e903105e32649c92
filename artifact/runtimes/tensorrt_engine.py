"""A TensorRT or TensorRT for RTX engine on an NVIDIA GPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from artifact.artifact import Artifact
from artifact.fingerprint import EngineMismatch, mismatches
from artifact.records import Logits
from artifact.runtimes.base import RuntimeUnavailable, check_pixels
from artifact.runtimes.cuda import Cuda
from artifact.runtimes.gpu import require_gpu
from artifact.runtimes.resident import GpuRuntime, Resident
from artifact.runtimes.tensorrt_builder import rebuild_engine
from artifact.runtimes.tensorrt_flavours import create, import_flavour, make_logger
from core.preprocess import Pixels


@dataclass(kw_only=True, slots=True)
class _Place:
    """An execution context and its buffers on the GPU."""

    pixels: Any
    logits: Any
    context: Any
    profile: int = 0  # the initial profile of a context


class EngineRuntime(GpuRuntime):
    """An engine with one execution context, buffers for its largest batch, and one stream."""

    parallel = False  # a call fills the buffers

    def __init__(self, name: str, artifact: Artifact, engine: bytes) -> None:
        assert artifact.fingerprint is not None, "an engine has a fingerprint"
        trt = import_flavour(artifact.format)
        self.name = name
        self._artifact = artifact
        self._profiles = artifact.fingerprint.profiles
        self._cuda = Cuda(name)
        self._logger = make_logger(trt)
        with ExitStack() as own:  # frees everything if a later step fails
            self._runtime = self._need(create(trt.Runtime, self._logger), "cannot start TensorRT")
            self._engine = self._need(
                self._runtime.deserialize_cuda_engine(engine), f"cannot load {artifact.model_file}"
            )
            self._stream = self._cuda.stream(own)
            self._place: _Place | None = self._make_place(artifact.batch_range[1], own)
            self._own = own.pop_all()

    def __call__(self, pixels: Pixels) -> Logits:
        """Returns float32 logits (N, C) of uint8 pixels (N, H, W, 3), one call at a time."""
        assert self._place is not None, "called after the runtime was closed"
        check_pixels(pixels, self._artifact)
        self._set_shape(self._place, pixels)
        self._upload(self._place, pixels)
        self._run(self._place)
        shape = (len(pixels), len(self._artifact.labels))
        return self._cuda.download(self._stream, self._place.logits, shape)

    def resident(self, pixels: Pixels, *, graph: bool = False) -> Resident:
        """Copies uint8 ``pixels`` (N, H, W, 3) to the GPU, ready for inference there.

        It has its own execution context and buffers, and uses the runtime's stream.

        Raises:
            RuntimeUnavailable: CUDA or TensorRT fails.
        """
        check_pixels(pixels, self._artifact)
        with ExitStack() as own:
            place = self._make_place(len(pixels), own)
            self._set_shape(place, pixels)
            self._upload(place, pixels)
            launch: Callable[[], object] = partial(self._run, place)
            if graph:
                launch()  # the first run after a change of shape does work that cannot be captured
                self._cuda.do(self._cuda.api.cudaStreamSynchronize(self._stream))
                launch = self._cuda.graph(own, self._stream, launch)
            shape = (len(pixels), len(self._artifact.labels))
            resident = Resident(self._cuda, self._stream, launch, shape, lambda: place.logits, own)
        return resident

    def close(self) -> None:
        """Frees the runtime's resources; it must not be called afterwards."""
        self._place = self._engine = self._runtime = None  # in this order: each needs the next
        self._own.close()

    def _make_place(self, batch: int, own: ExitStack) -> _Place:
        """Returns a place for up to ``batch`` images; ``own`` will free its buffers."""
        values, classes = math.prod(self._artifact.preprocess.shape), len(self._artifact.labels)
        place = _Place(
            pixels=self._cuda.allocate(own, batch * values),
            logits=self._cuda.allocate(own, batch * classes * 4),
            context=self._need(
                self._engine.create_execution_context(), "cannot start an execution context"
            ),
        )
        self._set_addresses(place)
        return place

    def _set_shape(self, place: _Place, pixels: Pixels) -> None:
        self._choose_profile(place, len(pixels))
        shaped = place.context.set_input_shape(self._artifact.input.name, pixels.shape)
        self._need(shaped, f"refuses pixels of {list(pixels.shape)}")

    def _upload(self, place: _Place, pixels: Pixels) -> None:
        api, pixels = self._cuda.api, np.ascontiguousarray(pixels)
        up, stream = api.cudaMemcpyKind.cudaMemcpyHostToDevice, self._stream
        copied = api.cudaMemcpyAsync(place.pixels, pixels.ctypes.data, pixels.nbytes, up, stream)
        self._cuda.do(copied)

    def _run(self, place: _Place) -> None:
        self._need(place.context.execute_async_v3(int(self._stream)), "cannot run the engine")

    def _choose_profile(self, place: _Place, batch: int) -> None:
        """Switches to the profile for exactly ``batch``, or to the dynamic one."""
        fits = (i for i, (low, _, high) in enumerate(self._profiles) if low == high == batch)
        index = next(fits, 0)
        if index == place.profile:
            return
        # On the engine's stream, so that they are ordered. The shape must be set afterwards, and so
        # are the addresses: nothing guarantees that they survive the switch.
        switched = place.context.set_optimization_profile_async(index, int(self._stream))
        self._need(switched, f"cannot switch to profile {index}, {self._profiles[index]}")
        place.profile = index
        self._set_addresses(place)

    def _set_addresses(self, place: _Place) -> None:
        for end, buffer in (
            (self._artifact.input, place.pixels),
            (self._artifact.output, place.logits),
        ):
            bound = place.context.set_tensor_address(end.name, int(buffer))
            self._need(bound, f"has no tensor {end.name}")

    def _need(self, answer: Any, otherwise: str) -> Any:
        """Returns ``answer``; raises if it is None or False, TensorRT's signs of failure."""
        if answer is None or answer is False:
            raise RuntimeUnavailable(f"{self.name} {otherwise}: {self._logger.reason()}")
        return answer


def require(name: str) -> None:
    """Raises RuntimeUnavailable if there is no GPU, or no TensorRT of that flavour."""
    require_gpu(name)
    import_flavour(name.replace("-", "_"))


def load(artifact: Artifact, *, threads: int | None = None, rebuild: bool = False) -> EngineRuntime:
    """Loads an engine on the first GPU; ``threads`` has no effect.

    With ``rebuild``, an engine that does not fit this machine is built again, in memory, from the
    graph in its folder.

    Raises:
        EngineMismatch: the engine does not fit this machine, and ``rebuild`` is false.
        RuntimeUnavailable: no GPU, no TensorRT of that flavour, or an engine it cannot load.
    """
    name = artifact.format.replace("_", "-")
    gpu = require_gpu(name)
    version = import_flavour(artifact.format).__version__
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
