"""Profiles the kernels that ONNX Runtime runs for a graph.

The profiler records a kernel's inputs while the kernel's clock is still running. That takes
microseconds, longer than many kernels. This overhead is therefore measured on trivial kernels and
subtracted.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import numpy.typing as npt

from artifact.runtimes.ort import CPU, cpu_options
from bench.measure.timing import Call, Latency, Plan, measure
from core.errors import UserError

ProbeKey = tuple[tuple[int, int], bool]  # (kernels, inputs) of a chain, and whether it is profiled

_KERNEL = "_kernel_time"
_BLOCKED = "Nchwc"
# A run waited that took more than this times the lower quartile, and so many microseconds.
_WAITED = 1.25, 100
_COLD = 1.5  # largest ratio of the profiler's overhead in a network to that in a chain
# Chains of trivial kernels: (kernels, inputs of each).
_SHORT, _LONG, _MANY = (10, 1), (100, 1), (100, 8)
_PLAN = Plan(count=50, seconds=0.0, limit=1.0, rounds=5)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A node of the graph as ONNX Runtime optimised it for this machine.

    Attributes:
        name: name of the node; derived from that of a layer, unless ONNX Runtime added the node.
        op: operator, such as ``FusedConv`` or ``ReorderInput``. ``NchwcConv`` is ``Conv`` in a
            layout of blocks of 8 or 16 channels, which is several times as fast; it is used only
            if the channels fill the blocks.
        seconds: interquartile mean of the runs that did not wait: a median of whole microseconds
            is too coarse, and a mean of all runs includes outliers.
        inputs: number of inputs, including weights.
        read: bytes of inputs that are outputs of other kernels, in ONNX Runtime's data type.
        written: bytes of outputs.
    """

    name: str
    op: str
    seconds: float
    inputs: int
    read: int
    written: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Overhead:
    """The overhead in a kernel's time.

    Attributes:
        launch: seconds to launch a kernel, profiled or not.
        profiler: seconds that the profiler adds to a kernel with one input.
        per_input: seconds that the profiler adds for each further input.
    """

    launch: float
    profiler: float
    per_input: float

    def cost(self, inputs: int) -> float:
        """Returns the seconds that the profiler adds to a kernel with this number of inputs."""
        return self.profiler + self.per_input * (inputs - 1)


def without_profiler(kernels: Sequence[Kernel], call: float, overhead: Overhead) -> list[Kernel]:
    """Returns ``kernels`` with the profiler's overhead subtracted from each.

    In a network the profiler's code is evicted from the caches between kernels, so its overhead is
    larger than in a chain of trivial kernels. If the sum of the kernels still exceeds ``call``, the
    overhead is scaled by up to 1.5.

    Args:
        kernels: the profiled kernels of a call.
        call: seconds of a call without the profiler.
        overhead: overhead, measured on chains of trivial kernels.
    """
    costs = [overhead.cost(kernel.inputs) for kernel in kernels]
    over = sum(kernel.seconds for kernel in kernels) - call
    factor = min(max(over / sum(costs), 1.0), _COLD) if any(costs) else 1.0
    return [
        replace(kernel, seconds=max(kernel.seconds - factor * cost, overhead.launch))
        for kernel, cost in zip(kernels, costs, strict=True)
    ]


class Profiler:
    """A profiled session of a graph with one input; see :func:`profiling`."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._input = session.get_inputs()[0].name
        self._batches: list[int] = []
        self._events: list[dict[str, Any]] | None = None

    def __call__(self, pixels: npt.NDArray[Any]) -> None:
        """Runs the graph once."""
        self._session.run(None, {self._input: pixels})
        self._batches.append(len(pixels))

    def kernels(self, batch: int, *, skip: int) -> list[Kernel]:
        """Ends the profile and returns the kernels of the calls with this batch size.

        Args:
            batch: batch size.
            skip: number of calls of this batch size, at the start, that are ignored.
        """
        calls = [index for index, size in enumerate(self._batches) if size == batch]
        return kernels(self.end(), calls[skip:], count=len(self._batches))

    def end(self) -> list[dict[str, Any]]:
        """Ends the profile and returns its events; no call may follow."""
        if self._events is None:
            self._events = json.loads(Path(self._session.end_profiling()).read_text())
        return self._events


@contextmanager
def profiling(open_session: Callable[[Path], Any]) -> Iterator[Profiler]:
    """Yields the profiler of a session.

    Args:
        open_session: takes the prefix of the profile's path and returns the session.
    """
    with tempfile.TemporaryDirectory() as folder:
        profiler = Profiler(open_session(Path(folder) / "profile"))
        try:
            yield profiler
        finally:
            profiler.end()  # otherwise the file is written when the session is garbage-collected


def kernels(events: Iterable[dict[str, Any]], calls: list[int], *, count: int) -> list[Kernel]:
    """Returns the kernels of a profile, in the order of its first call.

    Args:
        events: events of ONNX Runtime's profile; durations are in whole microseconds.
        calls: indices of the calls to use.
        count: total number of calls.

    Raises:
        UserError: a kernel was not recorded in every call, so that runs cannot be assigned to
            calls.
    """
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for event in events:
        if event["cat"] == "Node" and event["name"].endswith(_KERNEL):
            node = event["args"]["node_index"], event["name"]
            found.setdefault(node, []).append(event)
    for (_, name), runs in found.items():
        if len(runs) != count:
            raise UserError(
                f"ONNX Runtime's profile holds {len(runs)} runs of {name}, there were {count} "
                "calls: it keeps a million events at most; ask for fewer runs"
            )
    return [_kernel(name, [runs[index] for index in calls]) for (_, name), runs in found.items()]


class OverheadProbe:
    """Chains of trivial kernels that measure the overhead, timed with and without the profiler.

    They are interleaved with the profiled networks, as the overhead drifts with the machine's load.

    Attributes:
        calls: calls to time; :meth:`overhead` takes their latencies.
    """

    def __init__(self, threads: int, stack: ExitStack) -> None:
        self.calls: dict[ProbeKey, Call] = {}
        self._profilers: dict[tuple[int, int], Profiler] = {}
        one = np.ones(1, np.float32)
        for chain in (_SHORT, _LONG, _MANY):
            session = partial(_chain_session, *chain, threads)
            self._profilers[chain] = stack.enter_context(profiling(session))
            self.calls[chain, False] = partial(session().run, None, {"t0": one})
            self.calls[chain, True] = partial(self._profilers[chain], one)

    def overhead(self, taken: Mapping[ProbeKey, Latency]) -> Overhead:
        """Returns the overhead of a kernel, from the latencies of :attr:`calls`.

        The launch of a kernel is the time difference of chains of 100 and 10 kernels, without the
        profiler, divided by 90. The profiler's overhead is its mean time per kernel minus the time
        per kernel without it.
        """
        added = {}
        for chain in (_LONG, _MANY):
            made = self._profilers[chain].kernels(1, skip=taken[chain, True].warmup)
            plain = taken[chain, False].p50 / len(made)
            added[chain] = mean(kernel.seconds for kernel in made) - plain
        long, short = (min(taken[chain, False].samples) for chain in (_LONG, _SHORT))
        return Overhead(
            launch=max((long - short) / (_LONG[0] - _SHORT[0]), 0.0),
            profiler=max(added[_LONG], 0.0),
            per_input=max((added[_MANY] - added[_LONG]) / (_MANY[1] - _LONG[1]), 0.0),
        )


def measure_overhead(threads: int) -> Overhead:
    """Measures the overhead of a kernel on this machine."""
    with ExitStack() as stack:
        probe = OverheadProbe(threads, stack)
        return probe.overhead(measure(probe.calls, _PLAN))


def _chain_session(kernels: int, inputs: int, threads: int, profile: Path | None = None) -> Any:
    """Returns a session with a chain of ``kernels`` Max operators on one float."""
    import onnxruntime
    from onnx import TensorProto, helper

    nodes = [
        helper.make_node(
            "Max", [f"t{index}"] + ["t0"] * (inputs - 1), [f"t{index + 1}"], f"n{index}"
        )
        for index in range(kernels)
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])
        for name in ("t0", f"t{kernels}")
    ]
    graph = helper.make_graph(nodes, "chain", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    options = cpu_options(threads=threads, profile=profile)
    return onnxruntime.InferenceSession(model, options, [CPU])


def _kernel(name: str, runs: list[dict[str, Any]]) -> Kernel:
    facts = runs[-1]["args"]
    name = name.removesuffix(_KERNEL)
    return Kernel(
        name=name,
        op=f"{_BLOCKED if name.endswith('_nchwc') else ''}{facts['op_name']}",
        seconds=_middle_mean(_undisturbed([run["dur"] for run in runs])) / 1e6,
        inputs=len(facts["input_type_shape"]),
        read=int(facts["activation_size"]),
        written=int(facts["output_size"]),
    )


def _undisturbed(runs: list[int]) -> list[int]:
    """Returns the sorted runs without those that waited while another program had the core.

    A scheduler gives a core to another program for about a millisecond or more, and the profile
    knows no CPU time. Variation of a kernel by itself is smaller.
    """
    ordered = sorted(runs)
    limit = _WAITED[0] * ordered[len(ordered) // 4] + _WAITED[1]
    return [run for run in ordered if run <= limit]


def _middle_mean(ordered: list[int]) -> float:
    quarter = len(ordered) // 4
    return mean(ordered[quarter : len(ordered) - quarter])
