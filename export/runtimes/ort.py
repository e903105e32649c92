"""ONNX Runtime on a CPU or an NVIDIA GPU, and never one in place of the other. No torch here."""

from __future__ import annotations

from typing import Any

import onnxruntime

from export.artifact import Artifact
from export.records import Logits
from export.runtimes.base import Runtime, RuntimeUnavailable, check_pixels
from export.runtimes.gpu import require_gpu
from models.errors import first_line
from models.preprocess import Pixels

CUDA = "CUDAExecutionProvider"
CPU = "CPUExecutionProvider"


class OrtRuntime(Runtime):
    """An ONNX graph in one ``InferenceSession``; calls may come from several threads at once."""

    def __init__(self, name: str, artifact: Artifact, session: Any) -> None:
        self.name = name
        self._artifact = artifact
        self._session = session

    def __call__(self, pixels: Pixels) -> Logits:
        """Returns float32 logits (N, C) of uint8 pixels (N, H, W, 3)."""
        check_pixels(pixels, self._artifact)
        logits: Logits
        (logits,) = self._session.run(
            [self._artifact.output.name], {self._artifact.input.name: pixels}
        )
        return logits

    def close(self) -> None:
        """Frees what the runtime holds; no call may follow."""
        self._session = None


def load_cpu(artifact: Artifact, *, threads: int | None = None) -> OrtRuntime:
    """Returns ``artifact`` on the CPU, ``threads`` to a call (all cores if None)."""
    options = _options()
    options.intra_op_num_threads = threads or 0
    session = onnxruntime.InferenceSession(str(artifact.model_file), options, providers=[CPU])
    return OrtRuntime("ort-cpu", artifact, session)


def load_cuda(artifact: Artifact, *, threads: int | None = None) -> OrtRuntime:
    """Returns ``artifact`` on the first NVIDIA GPU; ``threads`` is of no use there.

    Raises:
        RuntimeUnavailable: no CUDA provider, no GPU, or a node that would run on the CPU.
    """
    if CUDA not in onnxruntime.get_available_providers():
        raise RuntimeUnavailable(
            "ort-cuda: this ONNX Runtime has no CUDA provider; pip install onnxruntime-gpu"
        )
    require_gpu("ort-cuda")
    onnxruntime.preload_dlls()
    options = _options()
    options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    try:
        session = onnxruntime.InferenceSession(str(artifact.model_file), options, providers=[CUDA])
    except Exception as error:  # ONNX Runtime's own exceptions share no public base class
        raise RuntimeUnavailable(f"ort-cuda: {first_line(error)}") from error
    if session.get_providers()[0] != CUDA:
        raise RuntimeUnavailable(
            f"ort-cuda: ONNX Runtime chose {session.get_providers()[0]} instead; "
            "is there a GPU, and a driver for CUDA 13?"
        )
    return OrtRuntime("ort-cuda", artifact, session)


def _options() -> Any:
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; a missing GPU is reported by the exception
    return options
