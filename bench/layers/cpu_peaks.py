"""Measures the peak rates of a CPU: matrix products and convolutions in ONNX Runtime, copies."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Barrier
from typing import Any

import numpy as np
import numpy.typing as npt

from artifact.records import Precision
from artifact.runtimes.ort import CPU, cpu_options
from bench.experiment import this_machine
from bench.layers.peaks import Peaks
from bench.layers.profiler import measure_overhead
from bench.measure.timing import Call, Plan, decisive, measure
from core.conditions import conditions

Floats = npt.NDArray[np.float32]
Work = Callable[[Floats, int], float]

# Matrix products (rows, depth, columns) as in small networks, and larger ones for many cores.
_PRODUCTS = ((128, 256, 256), (256, 512, 512), (512, 512, 512), (1024, 1024, 1024))
# 3x3 convolutions of ResNets: (channels, side). ONNX Runtime has special float32 kernels for them.
_CONVOLUTIONS = ((64, 56), (128, 28), (256, 14))
_PLAN = Plan(count=30, seconds=0.0, limit=0.3, rounds=10)
# Working sets of one thread, in bytes: from a first-level cache to beyond most last-level ones.
_SMALLEST, _LARGEST = 1 << 16, 1 << 28
_ALONE = 1 << 20  # copies of smaller sets are too short to be timed in several threads at once
_ROUNDS, _SECONDS = 10, 0.004  # repetitions for each working set, and seconds of one, about


def cpu_peaks(threads: int) -> Peaks:
    """Measures the peaks of this machine's CPU, which takes a few seconds."""
    return Peaks(
        machine=this_machine().key,
        runtime="ort-cpu",
        threads=threads,
        flops=_flops(threads),
        bandwidth=tuple(_bandwidth(threads)),
        launch=measure_overhead(threads).launch,
        when=conditions().when,
    )


def _flops(threads: int) -> dict[Precision, float]:
    """Returns the operations per second of the best shape, by precision.

    Of one thread they are those of its CPU time.
    """
    calls: dict[tuple[Precision, int, int], Call] = {}
    for rows, depth, columns in _PRODUCTS:
        for precision in ("fp32", "int8"):
            call = _product(precision, rows, depth, columns, threads)
            calls[precision, len(calls), 2 * rows * depth * columns] = call
    for channels, side in _CONVOLUTIONS:
        call = _convolution(channels, side, threads)
        calls["fp32", len(calls), 2 * 9 * channels**2 * side**2] = call
    rates: dict[Precision, float] = {}
    taken = measure(calls, _PLAN, one_thread=calls if threads == 1 else ())
    for (precision, _, operations), latency in taken.items():
        rate = operations / min(decisive([latency])[0].samples)
        rates[precision] = max(rate, rates.get(precision, 0.0))
    return rates


def _product(precision: Precision, rows: int, depth: int, columns: int, threads: int) -> Call:
    from onnx import TensorProto, helper

    integers = precision == "int8"
    types = (TensorProto.UINT8, TensorProto.INT32) if integers else (TensorProto.FLOAT,) * 2
    node = helper.make_node("MatMulInteger" if integers else "MatMul", ["x", "w"], ["y"])
    rng = np.random.default_rng(0)
    return _bound(
        node,
        rng.integers(0, 256, (rows, depth)).astype(np.uint8 if integers else np.float32),
        rng.integers(-64, 64, (depth, columns)).astype(np.int8 if integers else np.float32),
        (types[0], types[1]),
        (rows, columns),
        threads,
    )


def _convolution(channels: int, side: int, threads: int) -> Call:
    from onnx import TensorProto, helper

    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1] * 4)
    rng = np.random.default_rng(0)
    shape = (1, channels, side, side)
    return _bound(
        node,
        rng.standard_normal(shape, np.float32),
        rng.standard_normal((channels, channels, 3, 3), np.float32),
        (TensorProto.FLOAT, TensorProto.FLOAT),
        shape,
        threads,
    )


def _bound(
    node: Any, x: Any, weights: Any, types: tuple[int, int], shape: tuple[int, ...], threads: int
) -> Call:
    """Returns a call of one node, whose input and output are bound to fixed memory."""
    import onnxruntime
    from onnx import helper, numpy_helper

    graph = helper.make_graph(
        [node],
        "peak",
        [helper.make_tensor_value_info("x", types[0], x.shape)],
        [helper.make_tensor_value_info("y", types[1], shape)],
        [numpy_helper.from_array(weights, "w")],
    )
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    session = onnxruntime.InferenceSession(model, cpu_options(threads=threads), [CPU])
    ends = session.io_binding()
    ends.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(x))
    ends.bind_output("y")
    return partial(session.run_with_iobinding, ends)


def _bandwidth(threads: int) -> list[tuple[int, float]]:
    """Returns (working set in bytes, bytes per second), the better of copying and reading.

    A set is split among the threads. If the parts are too small to be timed at the same time, one
    is timed, and the others are assumed to be equally fast, as each core has its own cache.
    """
    memory = np.ones((threads, _LARGEST // threads // 4), np.float32)
    found = []
    with ThreadPoolExecutor(threads) as pool:
        size = _SMALLEST
        while size <= _LARGEST // threads:
            parts = memory[: threads if size >= _ALONE else 1, : size // 4]
            rates = [_moved(work, parts, pool) for work in (_copy, _read)]
            found.append((size * threads, max(rates) * threads / len(parts)))
            size *= 2
    return found


def _moved(work: Work, parts: Floats, pool: ThreadPoolExecutor) -> float:
    """Returns the highest bytes per second of ``work`` in all ``parts`` at the same time.

    Seconds are those of each thread's CPU time, in which it also waits for memory.
    """
    nothing = min(work(parts[0, :2], 1000) for _ in range(_ROUNDS)) / 1000
    count = max(1, round(_SECONDS / work(parts[0], 1)))
    barrier = Barrier(len(parts))

    def timed(part: Floats) -> float:
        barrier.wait()
        return work(part, count)

    seconds = min(max(pool.map(timed, parts)) for _ in range(_ROUNDS)) / count
    return parts.nbytes / max(seconds - nothing, seconds / 2)


def _copy(part: Floats, count: int) -> float:
    """Returns the seconds to copy one half of ``part`` to the other, ``count`` times."""
    half = len(part) // 2
    start = time.thread_time()
    for _ in range(count):
        np.copyto(part[half:], part[:half])
    return time.thread_time() - start


def _read(part: Floats, count: int) -> float:
    """Returns the seconds to compute the maximum of ``part``, ``count`` times."""
    start = time.thread_time()
    for _ in range(count):
        part.max()
    return time.thread_time() - start
