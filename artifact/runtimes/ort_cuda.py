"""ONNX Runtime on an NVIDIA GPU, without fallback to the CPU."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import onnxruntime

from artifact.artifact import Artifact
from artifact.records import Logits
from artifact.runtimes.base import RUNTIMES, RuntimeUnavailable, check_pixels
from artifact.runtimes.cuda import Cuda
from artifact.runtimes.gpu import require_gpu
from artifact.runtimes.ort import open_session, plain_options
from artifact.runtimes.resident import GpuRuntime, Resident
from core.preprocess import Pixels

NAME = "ort-cuda"
PROVIDER = "CUDAExecutionProvider"
# TF32, on by default, rounds the inputs of fp32 convolutions to 10 bits of mantissa.
_FP32 = {"use_tf32": "0"}
_FATAL = 4


class OrtCudaRuntime(GpuRuntime):
    """An ONNX graph, in a session for each batch size that is a power of two.

    A session that gets another batch size than the last time has cuDNN plan all convolutions anew:
    2.5 s for mobilenet_v1 in fp16 on an H100. Batches in between are filled up, and each session
    replays a CUDA graph.
    """

    parallel = False  # a call fills the buffers of its session

    def __init__(self, name: str, artifact: Artifact) -> None:
        self.name = name
        self._artifact = artifact
        self._sessions: dict[int, _Session] = {}

    def __call__(self, pixels: Pixels) -> Logits:
        """Returns float32 logits (N, C) of uint8 pixels (N, H, W, 3).

        Raises:
            RuntimeUnavailable: ONNX Runtime refuses.
        """
        check_pixels(pixels, self._artifact)
        self.prepare(len(pixels))
        return self._sessions[self._size(len(pixels))](pixels)[: len(pixels)]

    def prepare(self, size: int) -> None:
        """Opens and captures the session for ``size`` images, which takes seconds."""
        size = self._size(size)
        if size not in self._sessions:
            pixels = np.zeros((size, *self._artifact.preprocess.shape), np.uint8)
            session = _Session(self._artifact, pixels, {"enable_cuda_graph": "1"})
            session(pixels)
            self._sessions[size] = session

    def _size(self, count: int) -> int:
        return min(1 << (count - 1).bit_length(), self._artifact.batch_range[1])

    def resident(self, pixels: Pixels, *, graph: bool = False) -> Resident:
        """Copies uint8 ``pixels`` (N, H, W, 3) to the GPU, ready for inference there.

        Raises:
            RuntimeUnavailable: CUDA fails, or ONNX Runtime cannot capture a CUDA graph.
        """
        check_pixels(pixels, self._artifact)
        cuda = Cuda(NAME)
        with ExitStack() as own:
            stream = cuda.stream(own)
            options = {"user_compute_stream": str(int(stream))}
            if graph:
                options["enable_cuda_graph"] = "1"
            session = _Session(self._artifact, pixels, options)
            run = onnxruntime.RunOptions()
            # The events synchronise; waiting inside the run would be timed as GPU time.
            run.add_run_config_entry("disable_synchronize_execution_providers", "1")
            resident = Resident(
                cuda,
                stream,
                lambda: session.run(run),
                session.shape,
                session.address,
                own,
            )
        return resident

    def close(self) -> None:
        """Frees what the runtime holds; no call may follow."""
        self._sessions.clear()


class _Session:
    """A session for one batch size, with pixels and logits on the GPU.

    Args:
        artifact: what to run.
        pixels: uint8 (N, H, W, 3), the first batch.
        options: of the CUDA provider.

    Raises:
        RuntimeUnavailable: ONNX Runtime refuses.
    """

    def __init__(self, artifact: Artifact, pixels: Pixels, options: dict[str, str]) -> None:
        self.shape = (len(pixels), len(artifact.labels))
        self._pixels = np.ascontiguousarray(pixels)
        values = onnxruntime.OrtValue
        self._input = values.ortvalue_from_numpy(self._pixels, "cuda", 0)
        self._output = values.ortvalue_from_shape_and_type(self.shape, np.float32, "cuda", 0)
        self._session = _open(artifact, options)
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(artifact.input.name, self._input)
        self._binding.bind_ortvalue_output(artifact.output.name, self._output)

    def __call__(self, pixels: Pixels) -> Logits:
        """Returns float32 logits (N, C), of which those beyond ``pixels`` mean nothing."""
        if len(pixels) < len(self._pixels):
            self._pixels[: len(pixels)] = pixels
            pixels = self._pixels
        self._input.update_inplace(np.ascontiguousarray(pixels))
        self.run()
        logits: Logits = self._output.numpy()
        return logits

    def run(self, options: Any = None) -> None:
        """Computes the logits of the pixels on the GPU, and leaves them there."""
        self._session.run_with_iobinding(self._binding, options)

    def address(self) -> int:
        """Returns where the logits are, on the GPU."""
        return int(self._output.data_ptr())


def require(name: str) -> None:
    """Raises RuntimeUnavailable if there is no CUDA provider or no GPU."""
    if PROVIDER not in onnxruntime.get_available_providers():
        raise RuntimeUnavailable(
            f"{name}: this ONNX Runtime has no CUDA provider; {RUNTIMES.find(name).install}"
        )
    require_gpu(name)


def load(artifact: Artifact, *, threads: int | None = None) -> OrtCudaRuntime:
    """Loads ``artifact`` on the first NVIDIA GPU; ``threads`` has no effect.

    Raises:
        RuntimeUnavailable: no CUDA provider, no GPU, or a node that would run on the CPU.
    """
    require(NAME)
    onnxruntime.preload_dlls()
    # What cuDNN has no plan for is computed in another way, and logged as an error each time.
    onnxruntime.set_default_logger_severity(_FATAL)
    runtime = OrtCudaRuntime(NAME, artifact)
    runtime.prepare(1)
    return runtime


def _open(artifact: Artifact, provider_options: dict[str, str]) -> Any:
    options = plain_options()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = open_session(NAME, artifact, options, (PROVIDER, _FP32 | provider_options))
    if session.get_providers()[0] != PROVIDER:
        raise RuntimeUnavailable(
            f"{NAME}: ONNX Runtime chose {session.get_providers()[0]} instead; "
            "is there a GPU, and a driver for CUDA 13?"
        )
    return session
