"""Opens and checks the candidates of an artifact: each runtime at each batch size.

What cannot run is a candidate with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import numpy as np

from artifact.artifact import Artifact
from artifact.golden import check_golden, golden_pixels
from artifact.runtimes.base import RUNTIMES, Runtime, list_runtimes, load_runtime
from artifact.runtimes.resident import GpuRuntime, Resident, check_resident
from bench.latency.costs import count_costs
from bench.latency.grid import Grid
from bench.latency.rows import PLACES, Key, Place, Row
from bench.measure.timing import Call, Plan, Timed, is_complete
from core.errors import UserError, in_words

T = TypeVar("T")

_NOT_COMPILED = "compiling takes minutes a network; ask for it with: make bench ARGS=--compile"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row, with what it knows from before, and what is left to time at which places."""

    row: Row
    calls: Mapping[Place, Call | Timed] = field(default_factory=dict)


def load_candidates(
    row: Row,
    grid: Grid,
    plan: Plan,
    earlier: Mapping[Key, Row],
    stack: ExitStack,
) -> list[Candidate]:
    """Returns the candidates of one artifact.

    Args:
        row: what is known of it before it is read.
        grid: what to measure.
        plan: how much.
        earlier: rows to reuse where the artifact is the same, or to go on with.
        stack: closes what is opened.
    """
    artifact = _attempt(lambda: Artifact.load(grid.artifacts / row.folder))
    places = [(threads, batch) for threads in grid.threads for batch in grid.batches]
    if isinstance(artifact, str):
        return [
            Candidate(replace(row, batch=batch, threads=threads, reason=artifact))
            for threads, batch in places
        ]
    row = replace(
        row,
        model=artifact.model,
        data=artifact.data,
        weights=artifact.weights,
        macs=artifact.macs,
        parameters=artifact.parameters,
        size=artifact.size,
        sha256=artifact.sha256s[artifact.model_file.name],
        metrics=artifact.metrics,
        costs=count_costs(artifact) if artifact.name == "onnx-fp32" else None,
        unverified=artifact.unverified,
    )
    compiling = {name for name, spec in RUNTIMES.items() if spec.compiles}
    found: list[Candidate] = []
    for name in list_runtimes(artifact.format, artifact.precision):
        if grid.runtimes and name not in grid.runtimes:
            continue
        for threads in grid.threads:
            runtime: Runtime | str | None = None  # opened when a batch needs it
            for batch in grid.batches:
                here = replace(row, runtime=name, batch=batch, threads=threads)
                before = earlier.get(here.key)
                if before and before.latency and before.sha256 == row.sha256:
                    here = replace(
                        here,
                        latency=before.latency,
                        device=before.device,
                        graph=before.graph,
                        when=before.when,
                    )
                    if is_done(here, plan):
                        found.append(Candidate(here))
                        continue
                if name in compiling and not grid.compile:
                    found.append(Candidate(here.with_latency("host", _NOT_COMPILED)))
                    continue
                if runtime is None:
                    runtime = _attempt(partial(_open, name, artifact, threads, stack))
                if isinstance(runtime, str):
                    found.append(Candidate(here.with_latency("host", runtime)))
                else:
                    found.append(_prepare(here, runtime, artifact, stack))
    return found


def is_done(row: Row, plan: Plan) -> bool:
    """Returns whether all that was begun of ``row`` was measured as ``plan`` asks, or more."""
    return all(is_complete(done, plan) for place in PLACES if (done := row.at(place)))


def _prepare(row: Row, runtime: Runtime, artifact: Artifact, stack: ExitStack) -> Candidate:
    """Returns what is to be timed of ``row``; ``stack`` will free what it keeps on a GPU."""
    call = _attempt(partial(_first_call, runtime, artifact, row.batch))
    if isinstance(call, str):
        return Candidate(row.with_latency("host", call))
    calls: dict[Place, Call | Timed] = {"host": call}
    if isinstance(runtime, GpuRuntime):
        for place in PLACES[1:]:
            make = partial(_first_resident, runtime, artifact, row.batch, place == "graph", stack)
            resident = _attempt(make)
            if isinstance(resident, str):
                row = row.with_latency(place, resident)
            else:
                calls[place] = resident
    return Candidate(row, calls)


def _open(name: str, artifact: Artifact, threads: int, stack: ExitStack) -> Runtime:
    """Returns a runtime that reproduced the golden batch; ``stack`` will close it."""
    with ExitStack() as own:
        runtime = own.enter_context(load_runtime(name, artifact, threads=threads))
        check_golden(runtime, artifact)
        stack.enter_context(own.pop_all())
    return runtime


def _first_call(runtime: Runtime, artifact: Artifact, batch: int) -> Call:
    """Returns a call on ``batch`` golden images, repeated as needed, that has worked once.

    Raises:
        UserError: what it returns is no array on the host. Then the call may return before its
            work is done, and its duration would say nothing.
    """
    pixels = golden_pixels(artifact, batch)
    logits = runtime(pixels)
    if type(logits) is not np.ndarray:
        raise UserError(
            f"{runtime.name} returned {type(logits).__name__}, not an array on the host: its call "
            "may end before its work is done, so its duration says nothing"
        )
    return partial(runtime, pixels)


def _first_resident(
    runtime: GpuRuntime, artifact: Artifact, batch: int, graph: bool, stack: ExitStack
) -> Resident:
    """Returns the same images on the GPU, whose answers there were found right."""
    pixels = golden_pixels(artifact, batch)
    with ExitStack() as own:
        resident = own.enter_context(closing(runtime.resident(pixels, graph=graph)))
        check_resident(resident, runtime.name, runtime(pixels), artifact.limits.golden_error)
        stack.enter_context(own.pop_all())
    return resident


def _attempt(work: Callable[[], T]) -> T | str:
    """Returns what ``work`` returns, or in words why it could not."""
    try:
        return work()
    except Exception as error:  # native runtimes raise what they like; one must not end the sweep
        return in_words(error)
