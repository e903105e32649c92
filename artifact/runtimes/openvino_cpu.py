"""OpenVINO on a CPU, computing in the precision its graph says."""

from __future__ import annotations

import importlib
from collections import deque
from collections.abc import Callable
from typing import Any

from artifact.artifact import Artifact
from artifact.records import Logits
from artifact.runtimes.base import RUNTIMES, Runtime, RuntimeUnavailable, check_pixels
from core.preprocess import Pixels

DEVICE = "CPU"


class OpenvinoRuntime(Runtime):
    """An ONNX graph compiled for the CPU; calls may come from several threads at once.

    An ``InferRequest`` serves one call at a time, so each call takes an idle one, or makes one
    (20 us), and puts it back: there are as many as there ever were calls at once.
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
        """Returns a call that computes the logits of ``pixels`` and leaves them where they are.

        The pixels are in place already: it is a call less handing pixels in and logits out, which
        is what OpenVINO's own ``benchmark_app`` times.
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
        """Frees what the runtime holds; no call may follow."""
        del self._single, self._batched


class _Requests:
    """A compiled model and its idle requests; append and pop of a deque are atomic."""

    def __init__(self, compiled: Any) -> None:
        self.compiled = compiled
        self._idle: deque[Any] = deque()

    def __call__(self, pixels: Pixels) -> Logits:
        try:
            request = self._idle.pop()
        except IndexError:
            request = self.compiled.create_infer_request()
        # Copied into the request's own tensor: handing it another array costs about 0.1 ms a
        # call, the copy of a small image 0.01 ms. Logits are copied out: the next call
        # overwrites them.
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
    try:
        importlib.import_module("openvino")
    except ImportError as error:
        raise RuntimeUnavailable(
            f"{name}: cannot be imported ({error}); {RUNTIMES.find(name).install}"
        ) from error


def load(artifact: Artifact, *, threads: int | None = None) -> OpenvinoRuntime:
    """Returns ``artifact`` on the CPU, ``threads`` to a call (all cores if None).

    The graph is compiled twice: for a batch of exactly one, which spares the handling of free
    shapes (a fifth of the latency of a small network), and for any batch.

    Raises:
        RuntimeUnavailable: OpenVINO is not installed or cannot run the graph, or the CPU cannot
            compute in fp16.
    """
    require("openvino")
    import openvino
    from openvino import properties

    core = openvino.Core()
    arithmetic = openvino.Type.f16 if artifact.precision == "fp16" else openvino.Type.f32
    if artifact.precision == "fp16":
        capabilities = core.get_property(DEVICE, properties.device.capabilities())
        if "FP16" not in capabilities:
            raise RuntimeUnavailable(
                f"openvino: this CPU has no fp16 arithmetic (it has {', '.join(capabilities)})"
            )
    config = cpu_config(arithmetic, threads)
    try:
        model = core.read_model(artifact.model_file)
        batched = core.compile_model(model, DEVICE, config)
        model.reshape([1, *artifact.input.shape[1:]])
        single = core.compile_model(model, DEVICE, config)
    except RuntimeError as error:  # the last line says what, the others where in its source
        reason = str(error).strip().rpartition("\n")[2]
        raise RuntimeUnavailable(
            f"openvino: cannot run {artifact.model_file} ({reason})"
        ) from error
    return OpenvinoRuntime(artifact, single, batched)


def load_bare(network: object, graph: bytes, inputs: Any, threads: int) -> Callable[[], Any]:
    """Returns a call of a graph that is no artifact, in fp32; see :class:`RuntimeSpec`."""
    import openvino

    core = openvino.Core()
    model = core.read_model(graph)
    model.reshape(list(inputs.shape))
    compiled = core.compile_model(model, DEVICE, cpu_config(openvino.Type.f32, threads))
    request = compiled.create_infer_request()
    return lambda: request.infer([inputs], share_inputs=True)[0]


def cpu_config(arithmetic: Any, threads: int | None) -> dict[Any, Any]:
    """Returns how a graph is compiled for low latency.

    Args:
        arithmetic: the ``openvino.Type`` to compute in. Left alone, a CPU with AMX or AVX512-BF16
            computes an fp32 graph in bfloat16 and says nothing.
        threads: CPU threads inside a call; None for all cores.
    """
    from openvino import properties

    hint = properties.hint
    return {
        hint.performance_mode(): hint.PerformanceMode.LATENCY,
        hint.inference_precision(): arithmetic,
        # Several server processes would all pin their threads to the same first cores.
        hint.enable_cpu_pinning(): False,
        properties.inference_num_threads(): threads or 0,
    }
