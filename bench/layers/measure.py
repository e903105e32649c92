"""Profiles the layers of many artifacts in one run, interleaved, and joins them with their costs.

Artifacts that cannot be profiled are listed with the reason; stored profiles are reused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx

from artifact.artifact import Artifact
from artifact.golden import golden_pixels
from artifact.records import Precision
from artifact.runtimes.base import Runtime, load_runtime
from artifact.runtimes.ort import cpu_session
from bench.experiment import progress_bars, this_machine
from bench.layers.profiler import (
    Kernel,
    Overhead,
    OverheadProbe,
    ProbeKey,
    Profiler,
    profiling,
    without_profiler,
)
from bench.layers.record import LayerTime, LayerTimes, computed_in
from bench.measure.timing import Call, Latency, Plan, decisive, measure
from core.conditions import conditions
from core.errors import UserError, in_words
from core.preprocess import Pixels
from models.cost import BYTES, VIEWS, LayerCost, kind_without_weights, layer_costs
from report.format import plural

# Prefixes and suffixes that ONNX Runtime adds to names of nodes and outputs when it rewrites them.
_DECORATED = re.compile(
    r"(?:InsertedPrecisionFreeCast_)?(.*?)(?:_nchwc|_token_\d+|/QuickGeluFusion/)?"
)
# About 50 calls of a small network, fewer of a large one (1 s), in ten turns; the same number
# with and without the profiler.
PLAN = Plan(count=50, seconds=0.0, limit=1.0, rounds=10)


def join(
    model: Any, kernels: Sequence[Kernel], precision: Precision = "fp32", batch: int = 1
) -> list[LayerTime]:
    """Returns a layer for each of ``kernels``.

    A kernel computes the layer whose name it has, and the layers before it without a kernel, which
    were fused with it. It gets the cost of the one with the most MACs.

    Args:
        model: ``ModelProto`` of the profiled graph.
        kernels: from :class:`bench.layers.profiler.Profiler`.
        precision: precision of the graph's activations and weights.
        batch: batch size.

    Raises:
        UserError: layers with MACs that belong to no kernel.
    """
    costs, fused = layer_costs(model), _fused(model.graph, kernels)
    lost = [cost.name for cost in costs if cost.macs and cost.name not in fused]
    if lost:
        raise UserError(
            f"this ONNX Runtime names no kernel after {', '.join(lost[:3])}: its profile cannot be "
            f"joined with the graph ({plural(len(lost), 'layer')}); please report its version"
        )
    parts: dict[int, list[LayerCost]] = {}
    for cost in costs:
        if cost.name in fused:
            parts.setdefault(fused[cost.name], []).append(cost)
    nodes = {node.name: node for node in model.graph.node}
    layers = []
    for index, kernel in enumerate(kernels):
        # Without any MACs the last one, which has the kernel's name.
        main = max(reversed(parts.get(index, [])), key=lambda cost: cost.macs, default=None)
        if main is None:
            layers.append(_added(kernel))
        else:
            layers.append(_layer_time(kernel, main, nodes[main.name], precision, batch))
    return layers


def _added(kernel: Kernel) -> LayerTime:
    return LayerTime(
        name=kernel.name,
        op=kernel.op,
        kind=kind_without_weights(kernel.op),
        added=True,
        macs=0,
        bytes=0,
        read=kernel.read,
        weights=0,
        written=kernel.written,
        seconds=kernel.seconds,
    )


def _layer_time(
    kernel: Kernel, main: LayerCost, node: Any, precision: Precision, batch: int
) -> LayerTime:
    view = kernel.op in VIEWS
    size = BYTES[computed_in(kernel.op) if precision == "int8" else precision]
    return LayerTime(
        name=main.module or main.name,
        op=kernel.op,
        kind=main.kind,
        added=False,
        macs=main.macs * batch,
        bytes=main.bytes_moved(precision, batch),
        read=0 if view else _read(kernel, main, node),
        weights=main.parameters * size,
        written=0 if view else kernel.written,
        seconds=kernel.seconds,
    )


def _read(kernel: Kernel, main: LayerCost, node: Any) -> int:
    """Returns how many bytes of its inputs a kernel must read."""
    if kernel.op == "Slice":
        return min(kernel.read, kernel.written)
    if main.kind == "pointwise":  # with strides it skips pixels; larger windows cover all
        strides = next((a.ints for a in node.attribute if a.name == "strides"), ())
        return kernel.read // math.prod(strides)
    return kernel.read


def _fused(graph: Any, kernels: Iterable[Kernel]) -> Mapping[str, int]:
    """Returns name of a node to index of the kernel that computes it."""
    nodes = {node.name for node in graph.node}
    makers = {name: node.name for node in graph.node for name in node.output}
    found: dict[str, int] = {}
    for index, kernel in enumerate(kernels):
        plain = _DECORATED.fullmatch(kernel.name)
        for name in (kernel.name, plain[1] if plain else ""):
            if (node := name if name in nodes else makers.get(name)) is not None:
                found[node] = index
                break
    readers: dict[str, list[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.name)
    for node in reversed(graph.node):
        if node.name not in found:
            after = [found[r] for name in node.output for r in readers.get(name, []) if r in found]
            if after:
                found[node.name] = after[0]
    return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """An artifact that could not be profiled at a batch size.

    Attributes:
        network: ``<model>-<data>``.
        artifact: ``<format>-<precision>``.
        batch: batch size.
        reason: why not.
    """

    network: str
    artifact: str
    batch: int
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Profiles:
    """The result of :func:`profile_all`.

    Attributes:
        rows: layer times, reused or new, in the requested order.
        missing: artifacts that could not be profiled.
        when: UTC date and time of the new rows, ISO 8601; None if all were reused.
    """

    rows: tuple[LayerTimes, ...]
    missing: tuple[Missing, ...]
    when: str | None


def measure_layers(artifact: Artifact, *, batch: int, threads: int, runs: int) -> LayerTimes:
    """Measures the time of each layer of ``artifact`` in ONNX Runtime on this CPU.

    Args:
        artifact: an ONNX artifact; it is run on its golden images.
        batch: batch size.
        threads: CPU threads inside a call.
        runs: number of profiled calls, and of calls without the profiler; a slow network gets
            fewer.

    Raises:
        UserError: not an ONNX artifact, an unsupported batch size, or layers without a kernel.
    """
    plan = Plan(count=runs, seconds=0.0)
    found = profile_all([artifact], batches=(batch,), threads=threads, plan=plan)
    for missing in found.missing:
        raise UserError(missing.reason)
    return found.rows[0]


def profile_all(
    artifacts: Sequence[Artifact],
    *,
    batches: Sequence[int],
    threads: int,
    known: Sequence[LayerTimes] = (),
    plan: Plan = PLAN,
) -> Profiles:
    """Measures the layers of every artifact at every batch size.

    All calls, with and without the profiler, are interleaved, as a shared machine can be slow for
    seconds at a time.

    Args:
        artifacts: ONNX artifacts; others are returned as missing.
        batches: batch sizes.
        threads: CPU threads inside a call.
        known: earlier layer times, reused if machine, versions and graph are the same.
        plan: number of calls and rounds.
    """
    machine, when = this_machine().key, conditions().when
    kept = {(row.key, row.sha256): row for row in known if row.machine == machine}
    rows: list[LayerTimes | _Case] = []
    missing: list[Missing] = []
    with ExitStack() as stack:
        for artifact in artifacts:
            opened: _Opened | None = None
            for batch in batches:
                before = kept.get((_key(artifact, batch, threads), _digest(artifact)))
                if before:
                    rows.append(before)
                    continue
                try:
                    opened = opened or _open(artifact, threads, stack)
                    rows.append(_first_calls(opened, batch))
                except Exception as error:  # native runtimes raise any type
                    missing.append(_missing(artifact, batch, error))
        cases = [row for row in rows if isinstance(row, _Case)]
        if not cases:
            known_rows = tuple(row for row in rows if isinstance(row, LayerTimes))
            return Profiles(rows=known_rows, missing=tuple(missing), when=None)
        taken, overhead = _take_turns(cases, OverheadProbe(threads, stack), plan, threads)
        found: list[LayerTimes] = []
        for row in rows:
            if isinstance(row, LayerTimes):
                found.append(row)
                continue
            try:
                found.append(_times_of(row, threads, (machine, when), overhead, *taken[row]))
            except Exception as error:
                missing.append(_missing(row.opened.artifact, row.batch, error))
    return Profiles(rows=tuple(found), missing=tuple(missing), when=when)


@dataclass(frozen=True, slots=True)
class _Opened:
    """An artifact in two sessions: a normal one and a profiled one."""

    artifact: Artifact
    runtime: Runtime
    profiler: Profiler


@dataclass(frozen=True, slots=True, eq=False)
class _Case:
    """An artifact at a batch size, to be measured."""

    opened: _Opened
    batch: int
    pixels: Pixels


_Turn = tuple[_Case, bool] | ProbeKey  # the second element: whether it is profiled


def _open(artifact: Artifact, threads: int, stack: ExitStack) -> _Opened:
    """Opens ``artifact`` in two sessions; ``stack`` closes them."""
    if not artifact.spec.is_graph:
        raise UserError(
            f"{artifact.name} is no ONNX graph: layers are measured in ONNX Runtime; "
            "choose onnx-fp32, onnx-fp16 or onnx-int8"
        )
    open_session = partial(_profiled_session, artifact, threads)
    return _Opened(
        artifact=artifact,
        runtime=stack.enter_context(load_runtime("ort-cpu", artifact, threads=threads)),
        profiler=stack.enter_context(profiling(open_session)),
    )


def _profiled_session(artifact: Artifact, threads: int, profile: Path) -> Any:
    return cpu_session(artifact, threads=threads, profile=profile)


def _first_calls(opened: _Opened, batch: int) -> _Case:
    """Returns the artifact at a batch size, after running it once."""
    pixels = golden_pixels(opened.artifact, batch)
    opened.runtime(pixels)
    return _Case(opened, batch, pixels)


def _take_turns(
    cases: Sequence[_Case], probe: OverheadProbe, plan: Plan, threads: int
) -> tuple[dict[_Case, tuple[Latency, Latency]], Overhead]:
    """Returns each case's latency without and with the profiler, and the profiler's overhead."""
    calls: dict[_Turn, Call] = dict(probe.calls.items())
    for case in cases:
        calls[case, False] = partial(case.opened.runtime, case.pixels)
        calls[case, True] = partial(case.opened.profiler, case.pixels)
    with progress_bars() as bar:
        taken = measure(
            calls,
            plan,
            one_thread=[(case, False) for case in cases] if threads == 1 else (),
            tick=bar("Profiling", len(calls) * (plan.rounds + 1)),
        )
    overhead = probe.overhead({key: taken[key] for key in probe.calls})
    return {case: (taken[case, False], taken[case, True]) for case in cases}, overhead


def _times_of(
    case: _Case,
    threads: int,
    where: tuple[str, str],
    overhead: Overhead,
    call: Latency,
    profiled: Latency,
) -> LayerTimes:
    artifact = case.opened.artifact
    kernels = case.opened.profiler.kernels(case.batch, skip=profiled.warmup)
    kernels = without_profiler(kernels, decisive([call])[0].p50, overhead)
    layers = join(onnx.load(artifact.model_file), kernels, artifact.precision, case.batch)
    return LayerTimes(
        model=artifact.model,
        data=artifact.data,
        precision=artifact.precision,
        sha256=_digest(artifact),
        batch=case.batch,
        threads=threads,
        layers=tuple(layers),
        call=call,
        machine=where[0],
        when=where[1],
    )


def _missing(artifact: Artifact, batch: int, error: Exception) -> Missing:
    return Missing(
        network=f"{artifact.model}-{artifact.data}",
        artifact=artifact.name,
        batch=batch,
        reason=in_words(error),
    )


def _key(artifact: Artifact, batch: int, threads: int) -> tuple[str, str, int, int]:
    return f"{artifact.model}-{artifact.data}", artifact.precision, batch, threads


def _digest(artifact: Artifact) -> str:
    return artifact.sha256s[artifact.model_file.name]
