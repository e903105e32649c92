"""OpenVINO on a CPU, computing in the precision of the graph."""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from artifact.artifact import Artifact
from artifact.records import Logits
from artifact.runtimes.base import Runtime, RuntimeUnavailable, check_pixels, require_import
from core.preprocess import Pixels

DEVICE = "CPU"
_MAKING_CORE = threading.Lock()


class OpenvinoRuntime(Runtime):
    """An ONNX graph compiled for the CPU; safe for concurrent calls.

    An ``InferRequest`` serves one call at a time, so each call takes an idle one from a pool, or
    creates one (20 us), and returns it afterwards.
    """

    name = "openvino"

    def __init__(self, artifact: Artifact, single: Any, batched: Any) -> None:
        self._artifact = artifact
        self._single = _Requests(single)
        self._batched = _Requests(batched)

    def __call__(self, pixels: Pixels) -> Logits:
        """Returns float32 logits (N, C) of uint8 pixels (N, H, W, 3)."""
        check_pixels(pixels, self._artifact)
        return (self._single if len(pixels) == 1 else self._batched)(pixels)

    def preset(self, pixels: Pixels) -> Callable[[], None]:
        """Returns a function that infers ``pixels``, without copying pixels in or logits out.

        The pixels are copied once, here. It is what OpenVINO's own ``benchmark_app`` times.
        """
        check_pixels(pixels, self._artifact)
        compiled = (self._single if len(pixels) == 1 else self._batched).compiled
        request = compiled.create_infer_request()
        tensor = request.get_input_tensor()
        tensor.shape = pixels.shape
        tensor.data[:] = pixels

        def infer() -> None:
            request.infer()

        return infer

    def close(self) -> None:
        """Frees the runtime's resources; it must not be called afterwards."""
        del self._single, self._batched


class _Requests:
    """A compiled model and its idle requests; ``append`` and ``pop`` of a deque are atomic."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self._idle: deque[Any] = deque()

    def __call__(self, pixels: Pixels) -> Logits:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self.compiled.create_infer_request()
        # Copied into the request's own tensor: passing another array costs about 0.1 ms per call,
        # copying a small image 0.01 ms. Logits are copied out, as the next call overwrites them.
        tensor = request.get_input_tensor()
        if tuple(tensor.shape) != pixels.shape:
            tensor.shape = pixels.shape
        tensor.data[:] = pixels
        request.infer(share_outputs=True)
        logits: Logits = request.get_output_tensor().data.copy()
        self._idle.append(request)
        return logits


def require(name: str) -> None:
    """Raises RuntimeUnavailable if OpenVINO cannot be imported."""
    require_import(name, "openvino")


def core() -> Any:
    """Returns the ``openvino.Core`` of this process, made by the first call.

    It is the only one and lives as long as the process. The CPU plugin of each gives the thread a
    stack for its signal handlers, and at its end brings back the stack that it had found. Of two
    plugins that end in the order in which they were made, the second brings back the stack that the
    first has freed, and the next signal ends the process with a segmentation fault (OpenVINO
    2026.4, sigstack_manager.cpp).

    A process that has run graphs must not be forked to run more (the supervisor of the service,
    which forks, runs none): the threads that wait there for the next graph are not in the child.
    """
    with _MAKING_CORE:
        return _core()


@functools.cache
def _core() -> Any:
    import openvino

    return openvino.Core()


def load(artifact: Artifact, *, threads: int | None = None) -> OpenvinoRuntime:
    """Loads ``artifact`` on the CPU, with ``threads`` per call (all cores if None).

    The graph is compiled twice: for batch size 1, which avoids the cost of dynamic shapes (a fifth
    of the latency of a small network), and for any batch size.

    Raises:
        RuntimeUnavailable: OpenVINO is not installed or cannot run the graph, or the CPU cannot
            compute in fp16 or bfloat16.
    """
    require("openvino")
    import openvino
    from openvino import properties

    precision, arithmetic = artifact.precision, openvino.Type.f32
    if precision in ("fp16", "bf16"):
        arithmetic = openvino.Type.f16 if precision == "fp16" else openvino.Type.bf16
        capabilities = core().get_property(DEVICE, properties.device.capabilities())
        if precision.upper() not in capabilities:
            raise RuntimeUnavailable(
                f"openvino: this CPU has no {precision} arithmetic (it has "
                f"{', '.join(capabilities)})"
            )
    config = cpu_config(arithmetic, threads)
    try:
        model = core().read_model(artifact.model_file)
        batched = core().compile_model(model, DEVICE, config)
        model.reshape([1, *artifact.input.shape[1:]])
        single = core().compile_model(model, DEVICE, config)
    except RuntimeError as error:  # only the last line of its message is the reason
        reason = str(error).strip().rpartition("\n")[2]
        raise RuntimeUnavailable(
            f"openvino: cannot run {artifact.model_file} ({reason})"
        ) from error
    return OpenvinoRuntime(artifact, single, batched)


def load_bare(network: object, graph: bytes, inputs: Any, threads: int) -> Callable[[], Any]:
    """Returns a function that runs a bare graph in fp32; see ``RuntimeSpec.bare``."""
    import openvino

    model = core().read_model(graph)
    model.reshape(list(inputs.shape))
    compiled = core().compile_model(model, DEVICE, cpu_config(openvino.Type.f32, threads))
    request = compiled.create_infer_request()
    return lambda: request.infer([inputs], share_inputs=True)[0]


def cpu_config(arithmetic: Any, threads: int | None) -> dict[Any, Any]:
    """Returns the configuration to compile a graph for low latency.

    Args:
        arithmetic: the ``openvino.Type`` to compute in. By default, a CPU with AMX or AVX512-BF16
            silently computes an fp32 graph in bfloat16.
        threads: CPU threads inside a call; None for all cores.
    """
    from openvino import properties

    hint = properties.hint
    return {
        hint.performance_mode(): hint.PerformanceMode.LATENCY,
        hint.inference_precision(): arithmetic,
        # With pinning, several server processes would pin their threads to the same cores.
        hint.enable_cpu_pinning(): False,
        properties.inference_num_threads(): threads or 0,
    }
