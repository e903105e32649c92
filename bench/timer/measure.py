"""Compares our timer with the runtimes' own tools, on the same graph, pixels, threads and batch.

An error of the timer would affect all candidates alike and remain unnoticed, so it is checked
against ``benchmark_app`` of OpenVINO and ``onnxruntime_perf_test``. Both time a call with its input
already bound. Ours is timed in the same way, and also as everywhere else: from pixels to logits on
the host.

The timers are interleaved in turns of a fraction of a second on the same cores, as a shared machine
can be slow for seconds at a time and its cores may differ. Measured one after the other, medians of
one tool differed by up to 70 % here; interleaved on one core, the ratio of both timers was within
3 %.

The tools measure inside the runtime and so exclude the overhead of Python's bindings: 0.05 ms per
call here (1.59 against 1.54 ms), more than the tolerance of 3 % for calls below 2 ms. The time of
an empty graph (:class:`EmptyCall`) is therefore measured in each round and added to the tolerance.
If that exceeds a tenth of a call there is no verdict, as it could hide an error of that size.
"""

from __future__ import annotations

import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Protocol, runtime_checkable

import numpy as np

from artifact.artifact import Artifact
from artifact.golden import check_golden, golden_pixels
from artifact.runtimes.base import RuntimeUnavailable, load_runtime
from bench.measure.timing import MIN_ROUNDS, Call, Plan, measure, warm_up
from bench.timer.tools import TOOLS, Tool, ToolFailed, ToolJob, find_tool, started
from core.cores import confined
from core.errors import UserError
from core.files import write_whole
from core.preprocess import Pixels
from report.format import ms, percent
from report.section import Section, Table

_EMPTY_CALLS = 30
AGREES = 0.03  # tolerance, relative to the tool's p50
SHORT = 0.1  # largest fraction of a call in the bindings for which there is a verdict
FEWEST = 3  # least number of rounds
_TURN = 0.2  # seconds of a turn, at least those of _CALLS calls, so that few are interrupted
_CALLS = 20


@runtime_checkable
class Preset(Protocol):
    """A runtime that can bind its input and output to fixed memory."""

    def preset(self, pixels: Pixels) -> Call:
        """Returns a call with ``pixels`` bound as input, whose logits stay in bound memory."""


class EmptyCall:
    """The call of a trivial graph, timed right after the call of a network.

    It measures the overhead of a network's call. After a network, which has evicted the caches, it
    takes ten times as long as in a loop of its own (85 and 8 us in OpenVINO here).

    Args:
        runtime: name of a runtime with ``preset``.
        network: called, untimed, before each timed call.
        artifact: the graph gets the names of its input and output.
        threads: CPU threads inside a call.
    """

    def __init__(self, runtime: str, network: Call, artifact: Artifact, threads: int) -> None:
        pixels = np.zeros((1, 1, 1, 3), np.uint8)
        self._network = network
        with tempfile.TemporaryDirectory() as folder:
            source = replace(artifact.input, shape=("batch", *pixels.shape[1:]))
            empty = replace(artifact, path=Path(folder), input=source)
            write_whole(empty.model_file, _empty_graph(source.name, artifact.output.name))
            opened = load_runtime(runtime, empty, threads=threads)
        assert isinstance(opened, Preset), f"{runtime} has no preset"
        self._empty = opened.preset(pixels)
        self._empty()

    def median(self) -> float:
        """Returns the median time of 30 calls of the empty graph in seconds."""
        return median(self._elapse() for _ in range(_EMPTY_CALLS))

    def _elapse(self) -> float:
        self._network()
        start = time.perf_counter()
        self._empty()
        return time.perf_counter() - start


def _empty_graph(source: str, target: str) -> bytes:
    """Returns an ONNX graph that casts uint8 (N, 1, 1, 3) to float32."""
    from onnx import TensorProto, helper

    ends = [
        helper.make_tensor_value_info(name, kind, ["N", 1, 1, 3])
        for name, kind in ((source, TensorProto.UINT8), (target, TensorProto.FLOAT))
    ]
    node = helper.make_node("Cast", [source], [target], to=TensorProto.FLOAT)
    graph = helper.make_graph([node], "empty", ends[:1], ends[1:])
    opset = [helper.make_opsetid("", 20)]
    model: bytes = helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()
    return model


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """The comparison of a tool with our timer; figures are the p50 of each round in seconds.

    Attributes:
        tool: the program.
        calls: our timer, from pixels to logits.
        infers: our timer, with bound input.
        empties: our timer, for the empty graph.
        theirs: the tool.
        reason: why there are no figures; None if there are.
        failed: whether the tool is installed and failed.
    """

    tool: Tool
    calls: tuple[float, ...] = ()
    infers: tuple[float, ...] = ()
    empties: tuple[float, ...] = ()
    theirs: tuple[float, ...] = ()
    reason: str | None = None
    failed: bool = False

    @property
    def ratio(self) -> float:
        """Returns our p50 with bound input over the tool's: the median of the rounds."""
        return median(self.ratios)

    @property
    def ratios(self) -> tuple[float, ...]:
        """Returns our p50 with bound input over the tool's, in each round."""
        return tuple(ours / theirs for ours, theirs in zip(self.infers, self.theirs, strict=True))

    @property
    def allowance(self) -> float:
        """Returns the median overhead of the bindings, relative to the tool's p50."""
        pairs = zip(self.empties, self.theirs, strict=True)
        return median(empty / theirs for empty, theirs in pairs)

    @property
    def agrees(self) -> bool:
        """Returns whether the ratio is within 3 % plus, upwards, the overhead of the bindings.

        False without figures.
        """
        return self.reason is None and -AGREES <= self.ratio - 1 <= AGREES + self.allowance

    @property
    def sentence(self) -> str:
        """Returns the outcome in a few sentences."""
        name, runtime = self.tool.name, self.tool.runtime
        if self.reason is not None:
            return f"{runtime} is not held against {name}: {self.reason}."
        verdict = "they agree" if self.agrees else "they do not agree"
        text = (
            f"{runtime}: with the pixels in place our timer says {ms(median(self.infers))} ms, "
            f"{name} {ms(median(self.theirs))} ms. Interleaved on the same cores the ratio is "
            f"{self.ratio:.3f} (rounds: {min(self.ratios):.3f} to {max(self.ratios):.3f}), so "
            f"{verdict} within {percent(AGREES, decimals=0)} and the {percent(self.allowance)} "
            f"that the call of an empty graph takes ({ms(median(self.empties))} ms)."
        )
        handing = median(call / infer for call, infer in zip(self.calls, self.infers, strict=True))
        return (
            f"{text} Pixels to logits takes {handing:.3f} of that: handing pixels in and logits "
            f"out is what {name} leaves out."
        )


def crosscheck(
    artifact: Artifact, *, batch: int = 1, threads: int = 1, rounds: int = 5, seconds: float = 4.0
) -> list[Check]:
    """Compares each tool with our timer, interleaved, for ``seconds`` per timer and round.

    Raises:
        UserError: not an ONNX graph, or an argument out of range.
    """
    if not artifact.spec.is_graph:
        raise UserError(
            f"{artifact.path}: {artifact.name} is no ONNX graph, and the tools read nothing else; "
            "name an onnx artifact"
        )
    if rounds < FEWEST or seconds <= 0 or threads < 1 or batch < 1:
        raise UserError(
            f"rounds are {rounds}, seconds {seconds:g}, threads {threads}, batch {batch}: at least "
            f"{FEWEST} rounds, more than 0 s, and at least 1 of the others are needed"
        )
    job = ToolJob(
        artifact=artifact,
        pixels=golden_pixels(artifact, batch),
        threads=threads,
        seconds=seconds,
    )
    with confined(threads):
        return [_check(tool, job, rounds) for tool in TOOLS]


def passed(checks: list[Check]) -> bool:
    """Returns whether at least one tool agrees, and none fails or disagrees."""
    there = [check for check in checks if check.reason is None or check.failed]
    return bool(there) and all(check.agrees for check in there)


def crosscheck_section(checks: list[Check]) -> Section:
    """Returns a section with a text for each tool and a table of all rounds."""
    rows = []
    for check in checks:
        runtime, name = check.tool.runtime, check.tool.name
        if check.reason is not None:
            rows.append((runtime, name, "-", "-", "-"))
            continue
        for what, rounds in (
            ("bench, pixels to logits", check.calls),
            ("bench, pixels in place", check.infers),
            ("bench, an empty graph", check.empties),
            (name, check.theirs),
        ):
            ratios = [ours / theirs for ours, theirs in zip(rounds, check.theirs, strict=True)]
            figures = (" ".join(map(ms, rounds)), " ".join(f"{ratio:.3f}" for ratio in ratios))
            rows.append((runtime, what, *figures, f"{median(ratios):.3f}"))
    header = ("Runtime", "Timed by", "p50 ms of each round", "Over the tool's", "Median")
    return Section(
        title="The timer against other tools",
        sentences=tuple(check.sentence for check in checks),
        tables=(Table(header=header, rows=tuple(rows), numeric=frozenset(header[3:])),),
    )


def _check(tool: Tool, job: ToolJob, rounds: int) -> Check:
    program = find_tool(tool.name)
    if program is None:
        return Check(tool=tool, reason=f"it is not installed ({tool.package})")
    calls, infers, empties, theirs = [], [], [], []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        try:
            runtime = load_runtime(tool.runtime, job.artifact, threads=job.threads)
        except RuntimeUnavailable as error:
            return Check(tool=tool, reason=str(error))
        stack.enter_context(runtime)
        assert isinstance(runtime, Preset), "a tool is of a runtime that can be timed as it does"
        check_golden(runtime, job.artifact)
        infer = runtime.preset(job.pixels)
        empty = EmptyCall(tool.runtime, infer, job.artifact, job.threads)
        ours: dict[str, Call] = {"call": partial(runtime, job.pixels), "infer": infer}
        whole_call, binding = warm_up(infer).seconds, empty.median()
        if binding > SHORT * whole_call:
            return Check(
                tool=tool,
                reason=f"a call takes {ms(whole_call)} ms, that of an empty graph {ms(binding)}: "
                f"over {percent(SHORT, decimals=0)} of it is binding, which {tool.name} leaves "
                "out; take a larger network or batch",
            )
        turn = max(min(_TURN, job.seconds / MIN_ROUNDS), _CALLS * whole_call)
        turns = max(MIN_ROUNDS, round(job.seconds / turn))
        plan = Plan(count=1, seconds=turns * turn, limit=turns * turn, rounds=turns)
        # The tool has a turn after each turn of our two calls; its clock also runs while paused.
        whole = replace(job, seconds=4 * plan.seconds)
        command = [program, *tool.arguments(whole, folder)]
        for _ in range(rounds):
            with started(tool, command, folder) as run:
                latencies = measure(ours, plan, tick=partial(run.turn, turn))
                calls.append(latencies["call"].p50)
                infers.append(latencies["infer"].p50)
                empties.append(empty.median())
                try:
                    theirs.append(run.median(patience=120 + 2 * whole.seconds))
                except ToolFailed as error:
                    return Check(tool=tool, reason=str(error), failed=True)
    return Check(
        tool=tool,
        calls=tuple(calls),
        infers=tuple(infers),
        empties=tuple(empties),
        theirs=tuple(theirs),
    )
