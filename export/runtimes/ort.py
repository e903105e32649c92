"""ONNX Runtime on a CPU or an NVIDIA GPU, and never one in place of the other. No torch here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
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

    def preset(self, pixels: Pixels) -> Callable[[], None]:
        """Returns a call that computes the logits of ``pixels`` and leaves them where they are.

        The pixels are in place already, which is what ``onnxruntime_perf_test`` times, too.
        """
        check_pixels(pixels, self._artifact)
        binding = self._session.io_binding()
        binding.bind_cpu_input(self._artifact.input.name, pixels)
        binding.bind_output(self._artifact.output.name)
        session = self._session

        def infer() -> None:
            session.run_with_iobinding(binding)

        return infer

    def close(self) -> None:
        """Frees what the runtime holds; no call may follow."""
        self._session = None


def load_cpu(artifact: Artifact, *, threads: int | None = None) -> OrtRuntime:
    """Returns ``artifact`` on the CPU, ``threads`` to a call (all cores if None).

    Raises:
        RuntimeUnavailable: this ONNX Runtime cannot run the graph. The digests of its file hold
            and it ran where it was made, so what is wrong is here, such as an older version.
    """
    return OrtRuntime("ort-cpu", artifact, cpu_session(artifact, threads=threads))


def cpu_session(
    artifact: Artifact, *, threads: int | None = None, profile: Path | None = None
) -> Any:
    """Returns the ``InferenceSession`` of :func:`load_cpu`.

    Args:
        artifact: what to run.
        threads: CPU threads inside one call; None for all cores.
        profile: how the name of the file begins that each call is profiled into; None for none.

    Raises:
        RuntimeUnavailable: as :func:`load_cpu` does.
    """
    return _session("ort-cpu", artifact, cpu_options(threads, profile=profile), CPU)


def cpu_options(threads: int | None = None, *, profile: Path | None = None) -> Any:
    """Returns the ``SessionOptions`` of :func:`cpu_session`, for graphs that are no artifact."""
    options = _options()
    options.intra_op_num_threads = threads or 0
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return options


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
    session = _session("ort-cuda", artifact, options, CUDA)
    if session.get_providers()[0] != CUDA:
        raise RuntimeUnavailable(
            f"ort-cuda: ONNX Runtime chose {session.get_providers()[0]} instead; "
            "is there a GPU, and a driver for CUDA 13?"
        )
    return OrtRuntime("ort-cuda", artifact, session)


def _session(name: str, artifact: Artifact, options: Any, provider: str) -> Any:
    file = str(artifact.model_file)
    try:
        # Left on, the fallback prints to stdout and tries the CPU after some errors.
        return onnxruntime.InferenceSession(file, options, [provider], enable_fallback=0)
    except Exception as error:  # ONNX Runtime's own exceptions share no public base class
        what = f"{name}: cannot run {file} ({first_line(error)})"
        raise RuntimeUnavailable(what) from error


def _options() -> Any:
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; a missing GPU is reported by the exception
    return options
