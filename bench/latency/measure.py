"""Measures every artifact in every runtime at every batch size, interleaved in one run.

What cannot run is a row with its reason: nothing falls back to something else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar, cast

import numpy as np

from artifact.artifact import Artifact
from artifact.golden import check_golden, golden_pixels
from artifact.records import Precision
from artifact.runtimes.base import RUNTIMES, Runtime, list_runtimes, load_runtime
from artifact.runtimes.resident import GpuRuntime, Resident, check_resident
from bench.experiment import progress_bars, this_machine
from bench.latency.plan import Grid, find_artifacts, network_of
from bench.latency.record import PLACES, Key, Place, Row, Sweep, count_costs
from bench.measure.timing import Call, Latency, Plan, Timed, is_complete, measure
from core.conditions import conditions
from core.errors import UserError, in_words

T = TypeVar("T")

_NOT_COMPILED = "compiling takes minutes a network; ask for it with: make bench ARGS=--compile"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row, with what an earlier run measured of it, and what is left to time at each place."""

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
    """Returns whether every latency of ``row`` has as many samples as ``plan`` asks for."""
    return all(is_complete(done, plan) for place in PLACES if (done := row.at(place)))


def _prepare(row: Row, runtime: Runtime, artifact: Artifact, stack: ExitStack) -> Candidate:
    """Returns ``row`` with its calls to time; ``stack`` frees what they keep on a GPU."""
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


def run_sweep(
    grid: Grid,
    plan: Plan,
    *,
    known: Sweep | None = None,
    fresh: bool = False,
    save: Callable[[Sweep], object] | None = None,
) -> Sweep:
    """Returns a row for every candidate of ``grid``; those that run are measured together.

    Args:
        grid: what to measure.
        plan: how much.
        known: earlier rows of this machine. Those of the same artifacts are reused, a measurement
            that was cut off goes on, and what ``grid`` does not ask for stays.
        fresh: measure all of ``grid`` anew.
        save: called after each round with what there is by then.

    Raises:
        UserError: there are no artifacts (:func:`find_artifacts`).
    """
    folders = find_artifacts(grid)
    machine, before = this_machine(), conditions()
    assert known is None or known.machine.key == machine.key, "rows of two machines do not mix"
    earlier = {} if fresh or not known else _reusable(known, plan, grid, folders)
    found: list[Candidate] = []
    with progress_bars() as bar, ExitStack() as stack:
        loaded = bar("Loading", len(folders))
        blanks = [_blank(folder, grid, machine.key, before.when) for folder in folders]
        # On a GPU one by one: CUDA forbids much in all threads while one captures a graph.
        with ThreadPoolExecutor(1 if machine.gpu else machine.cores) as pool:
            for some in pool.map(
                lambda row: load_candidates(row, grid, plan, earlier, stack), blanks
            ):
                found += some
                loaded()
        calls = {
            (index, place): call
            for index, one in enumerate(found)
            for place, call in one.calls.items()
        }
        begun = {
            (index, place): latency
            for index, one in enumerate(found)
            for place in one.calls
            if (latency := one.row.at(place))
        }
        rest = _others(known, found, grid)

        def sweep(latencies: Mapping[tuple[int, Place], Latency]) -> Sweep:
            rows = [one.row for one in found]
            for (index, place), latency in latencies.items():
                rows[index] = rows[index].with_latency(place, latency)
            return Sweep(
                machine=machine,
                plan=plan,
                rows=tuple(sorted([*rows, *rest], key=lambda row: row.folder)),
                before=before,
                after=conditions(),
            )

        latencies = measure(
            calls,
            plan,
            begun=begun,
            tick=bar("Measuring", len(calls) * (plan.rounds + 1)),
            # To ask a GPU for its clock takes a tenth of a second: only where it is kept.
            save=(lambda latencies: save(sweep(latencies))) if save else lambda _: None,
        )
    return sweep(latencies)


def _reusable(known: Sweep, plan: Plan, grid: Grid, folders: Iterable[Path]) -> dict[Key, Row]:
    """Returns the rows of ``known`` that are complete, or can go on where they stopped.

    A run goes on as a whole or not at all: if some of its rows went on without the others, the
    turns of one would be of another hour than those of the other, under the name of one run.
    """
    names = {folder.relative_to(grid.artifacts).as_posix() for folder in folders}
    begun = [row for row in known.rows if row.latency and not is_done(row, plan)]
    parted = {row.when for row in begun if row.folder not in names or not _is_asked(row, grid)}
    return {
        row.key: row
        for row in known.rows
        if is_done(row, plan) or (known.plan == plan and row.when not in parted)
    }


def _is_asked(row: Row, grid: Grid) -> bool:
    """Returns whether ``grid`` asks for the batch, threads and runtime of ``row``."""
    here = row.batch in grid.batches and row.threads in grid.threads
    return here and (not grid.runtimes or row.runtime in grid.runtimes)


def _others(known: Sweep | None, found: Iterable[Candidate], grid: Grid) -> list[Row]:
    """Returns the rows of ``known`` that this run does not replace."""
    if known is None:
        return []
    digests = {one.row.folder: one.row.sha256 for one in found}
    return [
        row
        for row in known.rows
        if row.folder not in digests
        or (row.sha256 == digests[row.folder] and not _is_asked(row, grid))
    ]


def _blank(folder: Path, grid: Grid, machine: str, when: str) -> Row:
    """Returns what is known of an artifact before it is read: its place, and the run's facts."""
    network = network_of(grid.artifacts, folder)
    model, _, data = network.partition("-")
    form, _, precision = folder.name.rpartition("-")
    return Row(
        model=model,
        data=data,
        folder=f"{network}/{folder.name}",
        format=form,
        precision=cast(Precision, precision),
        runtime=None,
        batch=grid.batches[0],
        threads=grid.threads[0],
        machine=machine,
        when=when,
    )
