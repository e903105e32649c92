"""Measures the overhead of calling a graph that computes next to nothing.

Called again and again this takes a few microseconds. After a network, whose work has filled the
caches, it takes ten times as long (OpenVINO, where this was written: 8 and 85 us), and that is what
each call of a network pays. So each is timed right after a call of the network itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from artifact.runtimes.openvino_cpu import DEVICE, cpu_config
from artifact.runtimes.ort import CPU, cpu_options
from bench.measure.timing import Call

_CALLS = 30


class EmptyCall:
    """The call of an empty graph, timed right after ``network`` was called, which is not."""

    def __init__(self, runtime: str, network: Call, threads: int) -> None:
        self._network = network
        self._empty = _EMPTY[runtime](_empty_graph(), threads)
        self._empty()

    def median(self) -> float:
        """Returns the median seconds of some calls of the empty graph."""
        return median(self._elapse() for _ in range(_CALLS))

    def _elapse(self) -> float:
        self._network()
        start = time.perf_counter()
        self._empty()
        return time.perf_counter() - start


def _empty_graph() -> bytes:
    """Returns an ONNX graph of one Relu of one float."""
    from onnx import TensorProto, helper

    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    node = helper.make_node("Relu", ["x"], ["y"])
    graph = helper.make_graph([node], "empty", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 20)]
    model: bytes = helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    return model


def _in_openvino(graph: bytes, threads: int) -> Call:
    import openvino

    core = openvino.Core()
    config = cpu_config(openvino.Type.f32, threads)
    request: Any = core.compile_model(core.read_model(graph), DEVICE, config).create_infer_request()

    def infer() -> None:
        request.infer()

    return infer


def _in_ort(graph: bytes, threads: int) -> Call:
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(graph, cpu_options(threads), [CPU])
    ends = session.io_binding()
    ends.bind_cpu_input("x", np.ones(1, np.float32))
    ends.bind_output("y")

    def infer() -> None:
        session.run_with_iobinding(ends)

    return infer


# As each runtime's ``preset`` calls its graph.
_EMPTY: dict[str, Callable[[bytes, int], Call]] = {"openvino": _in_openvino, "ort-cpu": _in_ort}
