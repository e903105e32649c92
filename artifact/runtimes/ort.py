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
    """An ONNX graph in one ``InferenceSession``; safe for concurrent calls."""

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
        """Returns a function that infers ``pixels``, without copying pixels in or logits out.

        The pixels are bound once, here. It is what ``onnxruntime_perf_test`` times.
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
        """Frees the runtime's resources; it must not be called afterwards."""
        self._session = None


def load_cpu(artifact: Artifact, *, threads: int | None = None) -> OrtRuntime:
    """Loads ``artifact`` on the CPU, with ``threads`` per call (all cores if None).

    Raises:
        RuntimeUnavailable: this ONNX Runtime cannot run the graph, for example because it is too
            old: the file is intact and ran on the machine that made it.
    """
    return OrtRuntime("ort-cpu", artifact, cpu_session(artifact, threads=threads))


def load_bare(network: object, graph: bytes, inputs: Any, threads: int) -> Callable[[], Any]:
    """Returns a function that runs a bare graph; see ``RuntimeSpec.bare``."""
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
        profile: path prefix of the profile to write; None for no profile.

    Raises:
        RuntimeUnavailable: as :func:`load_cpu` does.
    """
    return open_session("ort-cpu", artifact, cpu_options(threads, profile=profile), CPU)


def cpu_options(threads: int | None = None, *, profile: Path | None = None) -> Any:
    """Returns the ``SessionOptions`` of :func:`cpu_session`; also used for bare graphs."""
    options = plain_options()
    options.intra_op_num_threads = threads or 0
    if profile:
        options.enable_profiling, options.profile_file_prefix = True, str(profile)
    return options


def open_session(name: str, artifact: Artifact, options: Any, provider: Any) -> Any:
    """Returns an ``InferenceSession`` of ``artifact`` with a single execution provider.

    Args:
        name: name of the runtime; every error message begins with it.
        artifact: what to run.
        options: ``SessionOptions``.
        provider: name of the execution provider, or (name, options).

    Raises:
        RuntimeUnavailable: ONNX Runtime cannot create it.
    """
    file = str(artifact.model_file)
    try:
        # The fallback, on by default, prints to stdout and tries the CPU after some errors.
        return onnxruntime.InferenceSession(file, options, [provider], enable_fallback=0)
    except Exception as error:  # ONNX Runtime's exceptions have no common public base class
        what = f"{name}: cannot run {file} ({first_line(error)})"
        raise RuntimeUnavailable(what) from error


def plain_options() -> Any:
    """Returns the ``SessionOptions`` that all sessions have in common."""
    options = onnxruntime.SessionOptions()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3  # only errors; a missing GPU raises an exception
    return options
