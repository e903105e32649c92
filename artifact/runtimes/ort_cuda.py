"""ONNX Runtime on an NVIDIA GPU, and never on a CPU in its place."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import numpy as np
import onnxruntime

from artifact.artifact import Artifact
from artifact.runtimes.base import RUNTIMES, RuntimeUnavailable, check_pixels
from artifact.runtimes.cuda import Cuda
from artifact.runtimes.gpu import require_gpu
from artifact.runtimes.ort import OrtRuntime, open_session, plain_options
from artifact.runtimes.resident import GpuRuntime, Resident
from core.preprocess import Pixels

NAME = "ort-cuda"
PROVIDER = "CUDAExecutionProvider"
# Left on, convolutions of an fp32 graph round their inputs to 10 bits of mantissa.
_FP32 = {"use_tf32": "0"}


class OrtCudaRuntime(OrtRuntime, GpuRuntime):
    """An ONNX graph in one ``InferenceSession``, and another one for each resident batch."""

    def resident(self, pixels: Pixels, *, graph: bool = False) -> Resident:
        """Returns uint8 ``pixels`` (N, H, W, 3) on the GPU, ready to be inferred there.

        Raises:
            RuntimeUnavailable: CUDA refuses, or ONNX Runtime cannot capture its work.
        """
        check_pixels(pixels, self._artifact)
        cuda = Cuda(NAME)
        with ExitStack() as own:
            stream = cuda.stream(own)
            options = {"user_compute_stream": str(int(stream))}
            if graph:
                options["enable_cuda_graph"] = "1"
            session = _session(self._artifact, options)
            here = onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(pixels), "cuda", 0)
            shape = (len(pixels), len(self._artifact.labels))
            answer = onnxruntime.OrtValue.ortvalue_from_shape_and_type(shape, np.float32, "cuda", 0)
            binding = session.io_binding()
            binding.bind_ortvalue_input(self._artifact.input.name, here)
            binding.bind_ortvalue_output(self._artifact.output.name, answer)
            run = onnxruntime.RunOptions()
            # The events wait; a wait inside the run would be timed as the GPU's.
            run.add_run_config_entry("disable_synchronize_execution_providers", "1")
            resident = Resident(
                cuda,
                stream,
                lambda: session.run_with_iobinding(binding, run),
                shape,
                answer.data_ptr,
                own,
            )
        return resident


def require(name: str) -> None:
    """Raises RuntimeUnavailable if there is no CUDA provider or no GPU."""
    if PROVIDER not in onnxruntime.get_available_providers():
        raise RuntimeUnavailable(
            f"{name}: this ONNX Runtime has no CUDA provider; {RUNTIMES.find(name).install}"
        )
    require_gpu(name)


def load(artifact: Artifact, *, threads: int | None = None) -> OrtCudaRuntime:
    """Returns ``artifact`` on the first NVIDIA GPU; ``threads`` has no effect.

    Raises:
        RuntimeUnavailable: no CUDA provider, no GPU, or a node that would run on the CPU.
    """
    require(NAME)
    onnxruntime.preload_dlls()
    return OrtCudaRuntime(NAME, artifact, _session(artifact, {}))


def _session(artifact: Artifact, provider_options: dict[str, str]) -> Any:
    options = plain_options()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = open_session(NAME, artifact, options, (PROVIDER, _FP32 | provider_options))
    if session.get_providers()[0] != PROVIDER:
        raise RuntimeUnavailable(
            f"{NAME}: ONNX Runtime chose {session.get_providers()[0]} instead; "
            "is there a GPU, and a driver for CUDA 13?"
        )
    return session
