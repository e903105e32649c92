"""ONNX Runtime on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime

from artifact.artifact import Artifact
from artifact.records import Logits
from artifact.runtimes.base import Runtime, RuntimeUnavailable, check_pixels
from core.errors import first_line
from core.preprocess import Pixels

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


def load_bare(network: object, graph: bytes, inputs: Any, threads: int) -> Callable[[], Any]:
    """Returns a call of a graph that is no artifact; see :class:`RuntimeSpec`."""
    session = onnxruntime.InferenceSession(graph, cpu_options(threads), [CPU], enable_fallback=0)
    (source,) = session.get_inputs()
    return lambda: session.run(None, {source.name: inputs})[0]


def cpu_session(
    artifact: Artifact, *, threads: int | None = None, profile: Path | None = None
) -> Any:
    """Returns the ``InferenceSession`` of :func:`load_cpu`.

    Args:
        artifact: what to run.
        threads: CPU threads inside one call; None for all cores.
        profile: prefix of the file that calls are profiled into; None profiles none.

    Raises:
        RuntimeUnavailable: as :func:`load_cpu` does.
    """
    return open_session("ort-cpu", artifact, cpu_options(threads, profile=profile), CPU)


def cpu_options(threads: int | None = None, *, profile: Path | None = None) -> Any:
    """Returns the ``SessionOptions`` of :func:`cpu_session`, for graphs outside artifacts, too."""
    options = plain_options()
    options.intra_op_num_threads = threads or 0
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return options


def open_session(name: str, artifact: Artifact, options: Any, provider: Any) -> Any:
    """Returns an ``InferenceSession`` of ``artifact`` in one provider alone.

    Args:
        name: of the runtime; every error begins with it.
        artifact: what to run.
        options: ``SessionOptions``.
        provider: the name of an execution provider, or (name, its options).

    Raises:
        RuntimeUnavailable: ONNX Runtime refuses.
    """
    file = str(artifact.model_file)
    try:
        # Left on, the fallback prints to stdout and tries the CPU after some errors.
        return onnxruntime.InferenceSession(file, options, [provider], enable_fallback=0)
    except Exception as error:  # ONNX Runtime's own exceptions share no public base class
        what = f"{name}: cannot run {file} ({first_line(error)})"
        raise RuntimeUnavailable(what) from error


def plain_options() -> Any:
    """Returns the ``SessionOptions`` that all sessions have in common."""
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors; a missing GPU is reported by the exception
    return options
