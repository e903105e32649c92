"""Profiles the kernels that ONNX Runtime runs for a graph.

The profiler writes down what a kernel was given while the kernel's clock still runs: microseconds,
which is more than many kernels take. So its own time is measured on kernels that do next to
nothing, and taken off.
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

ProbeKey = tuple[tuple[int, int], bool]  # a chain, and whether it is profiled

_KERNEL = "_kernel_time"
_BLOCKED = "Nchwc"
_COLD = 1.5  # how much more the profiler takes in a network than in a chain, at most
# Chains of kernels that do next to nothing: (kernels, inputs of each).
_SHORT, _LONG, _MANY = (10, 1), (100, 1), (100, 8)
_PLAN = Plan(count=50, seconds=0.0, limit=1.0, rounds=5)


@dataclass(frozen=True, slots=True)
class Kernel:
    """A node of the graph as ONNX Runtime optimised it for this machine.

    Attributes:
        name: of the node; ONNX Runtime makes it from that of a layer, unless it added the node.
        op: its operator, such as ``FusedConv`` or ``ReorderInput``. ``NchwcConv`` is ``Conv`` in a
            layout of blocks of 8 or 16 channels, which is several times as fast: one whose channels
            do not fill blocks stays a ``Conv``.
        seconds: of a run, the mean of the middle half: whole microseconds have too few digits for
            a median, and a mean of all has what the machine did meanwhile in it.
        inputs: how many it has, weights and the like included.
        read: bytes of its inputs that other kernels made, as ONNX Runtime holds them.
        written: bytes of its outputs.
    """

    name: str
    op: str
    seconds: float
    inputs: int
    read: int
    written: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Overhead:
    """The parts of a kernel's time that are not its work.

    Attributes:
        launch: seconds that the call of a kernel takes at least, profiled or not.
        profiler: seconds that the profiler adds to a kernel of one input.
        per_input: seconds that it adds for each further input.
    """

    launch: float
    profiler: float
    per_input: float

    def cost(self, inputs: int) -> float:
        """Returns the seconds that the profiler adds to a kernel of so many inputs."""
        return self.profiler + self.per_input * (inputs - 1)


def without_profiler(kernels: Sequence[Kernel], call: float, overhead: Overhead) -> list[Kernel]:
    """Returns ``kernels`` without the time that the profiler itself took for each.

    Between the kernels of a network the profiler's own code has left the caches, and takes longer
    than in a chain of nothing. So where kernels still add up to more than a call, it counts for up
    to half as much again.

    Args:
        kernels: of a call, as profiled.
        call: seconds of a call without the profiler.
        overhead: measured on chains.
    """
    costs = [overhead.cost(kernel.inputs) for kernel in kernels]
    over = sum(kernel.seconds for kernel in kernels) - call
    factor = min(max(over / sum(costs), 1.0), _COLD) if any(costs) else 1.0
    return [
        replace(kernel, seconds=max(kernel.seconds - factor * cost, overhead.launch))
        for kernel, cost in zip(kernels, costs, strict=True)
    ]


class Profiler:
    """A graph of one input in a session that is profiled; see :func:`profiling`."""

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
        """Returns the kernels of the calls with ``batch`` images; no call may follow.

        Args:
            batch: images of a call.
            skip: calls of that batch, at the start, that do not count.
        """
        calls = [index for index, size in enumerate(self._batches) if size == batch]
        return kernels(self.end(), calls[skip:], count=len(self._batches))

    def end(self) -> list[dict[str, Any]]:
        """Returns the events of all calls; none may follow."""
        if self._events is None:
            self._events = json.loads(Path(self._session.end_profiling()).read_text())
        return self._events


@contextmanager
def profiling(open_session: Callable[[Path], Any]) -> Iterator[Profiler]:
    """Yields the profiler of a session.

    Args:
        open_session: returns it, given how the name of its profile begins.
    """
    with tempfile.TemporaryDirectory() as folder:
        profiler = Profiler(open_session(Path(folder) / "profile"))
        try:
            yield profiler
        finally:
            profiler.end()  # else the file appears when the session is collected, somewhere


def kernels(events: Iterable[dict[str, Any]], calls: list[int], *, count: int) -> list[Kernel]:
    """Returns the kernels of a profile, in the order of its first call.

    Args:
        events: of ONNX Runtime's profile; durations are whole microseconds.
        calls: which calls count.
        count: calls in all.

    Raises:
        UserError: a kernel that did not run in each call, so that its calls cannot be told apart.
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
    """Chains of kernels that do next to nothing, timed whole and kernel by kernel.

    They take turns with what is profiled: the profiler's overhead drifts with the machine's load.

    Attributes:
        calls: what to time; its latencies are what :meth:`overhead` wants.
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
        """Returns the overhead of a kernel.

        What a chain of 100 kernels takes longer than one of 10, without the profiler, is the
        launch of 90. What the profiler says of each, over that, is the profiler's.
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
    """Returns the overhead of a kernel on this machine, measured now."""
    with ExitStack() as stack:
        probe = OverheadProbe(threads, stack)
        return probe.overhead(measure(probe.calls, _PLAN))


def _chain_session(kernels: int, inputs: int, threads: int, profile: Path | None = None) -> Any:
    """Returns a session of ``kernels`` maxima of one float, one after the other."""
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
        seconds=_middle_mean([run["dur"] for run in runs]) / 1e6,
        inputs=len(facts["input_type_shape"]),
        read=int(facts["activation_size"]),
        written=int(facts["output_size"]),
    )


def _middle_mean(values: list[int]) -> float:
    quarter = len(values) // 4
    return mean(sorted(values)[quarter : len(values) - quarter])
