"""Measures every artifact in every runtime at every batch size, interleaved in one run.

A candidate that cannot run gets a row with the reason; there are no fallbacks.
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
from bench.latency.costs import count_costs
from bench.latency.pick import tied_for_fastest
from bench.latency.plan import Grid, find_artifacts, network_of
from bench.latency.record import PLACES, Key, Place, Row, Sweep
from bench.measure.timing import Call, Latency, Plan, Timed, is_complete, measure
from core.cli import by_name
from core.conditions import Conditions, conditions
from core.errors import UserError, in_words

T = TypeVar("T")

_COMPILE = by_name("bench --compile", "make bench ARGS=--compile")
_NOT_COMPILED = f"compiling takes minutes a network; ask for it with: {_COMPILE}"


@dataclass(frozen=True, slots=True)
class Candidate:
    """A row, perhaps with samples of an earlier run, and the calls to time, by place."""

    row: Row
    calls: Mapping[Place, Call | Timed] = field(default_factory=dict)


def load_candidates(
    row: Row,
    grid: Grid,
    plan: Plan,
    earlier: Mapping[Key, Row],
    stack: ExitStack,
) -> list[Candidate]:
    """Loads an artifact in each of its runtimes and returns the candidates.

    Args:
        row: the facts that are known before the artifact is loaded.
        grid: what to measure.
        plan: number of samples and rounds.
        earlier: rows that are reused or continued if the artifact is the same.
        stack: closes what is opened.
    """
    artifact = _attempt(lambda: Artifact.load(grid.artifacts / row.folder))
    places = [(threads, batch) for threads in grid.threads for batch in grid.batches]
    if isinstance(artifact, str):
        return [
            Candidate(replace(row, batch=batch, threads=threads, reason=artifact))
            for threads, batch in places
        ]
    row = describe(row, artifact)
    compiling = {name for name, spec in RUNTIMES.items() if spec.compiles}
    found: list[Candidate] = []
    for name in list_runtimes(artifact.format, artifact.precision):
        if grid.runtimes and name not in grid.runtimes:
            continue
        for threads in grid.threads:
            runtime: Runtime | str | None = None  # opened when first needed
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
    """Returns ``row`` with the calls to time; ``stack`` frees their GPU memory."""
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


def describe(row: Row, artifact: Artifact) -> Row:
    """Returns the row with the fields that come from the manifest of ``artifact``."""
    return replace(
        row,
        model=artifact.model,
        data=artifact.data,
        weights=artifact.weights,
        macs=artifact.macs,
        parameters=artifact.parameters,
        size=artifact.size,
        sha256=artifact.sha256s[artifact.spec.model_file],
        metrics=artifact.metrics,
        costs=count_costs(artifact) if artifact.name == "onnx-fp32" else None,
        unverified=artifact.unverified,
    )


def _open(name: str, artifact: Artifact, threads: int, stack: ExitStack) -> Runtime:
    """Opens a runtime and checks the golden batch; ``stack`` closes it."""
    with ExitStack() as own:
        runtime = own.enter_context(load_runtime(name, artifact, threads=threads))
        check_golden(runtime, artifact)
        stack.enter_context(own.pop_all())
    return runtime


def _first_call(runtime: Runtime, artifact: Artifact, batch: int) -> Call:
    """Returns a call on ``batch`` golden images, repeated as needed, after running it once.

    Raises:
        UserError: the result is not a NumPy array. The call may then return before the computation
            has finished, so that its duration is meaningless.
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
    """Returns a call on the same images in GPU memory, after checking its logits."""
    pixels = golden_pixels(artifact, batch)
    with ExitStack() as own:
        resident = own.enter_context(closing(runtime.resident(pixels, graph=graph)))
        check_resident(resident, runtime.name, runtime(pixels), artifact.limits.golden_error)
        stack.enter_context(own.pop_all())
    return resident


def _attempt(work: Callable[[], T]) -> T | str:
    """Returns the result of ``work``, or the text of the exception that it raised."""
    try:
        return work()
    except Exception as error:  # native runtimes raise any type; the sweep must go on
        return in_words(error)


def run_sweep(
    grid: Grid,
    plan: Plan,
    *,
    known: Sweep | None = None,
    fresh: bool = False,
    save: Callable[[Sweep], object] | None = None,
) -> Sweep:
    """Measures the candidates of ``grid``, interleaved, and returns a sweep with a row for each.

    Args:
        grid: what to measure.
        plan: number of samples and rounds.
        known: earlier sweep of this machine. Rows of the same artifacts are reused, an interrupted
            measurement is continued, and rows outside ``grid`` are kept.
        fresh: measure all of ``grid`` again.
        save: called after each round with the sweep so far.

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
        blanks = [blank(folder, grid, machine.key, before.when) for folder in folders]
        # Sequential on a GPU: while one thread captures a CUDA graph, others may not call CUDA.
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

        def undecided(latencies: Mapping[tuple[int, Place], Latency]) -> set[tuple[int, Place]]:
            tied = {row.key for row in tied_for_fastest(sweep(latencies, before))}
            return {call for call in calls if found[call[0]].row.key in tied}

        def sweep(
            latencies: Mapping[tuple[int, Place], Latency], after: Conditions | None = None
        ) -> Sweep:
            rows = [one.row for one in found]
            for (index, place), latency in latencies.items():
                rows[index] = rows[index].with_latency(place, latency)
            return Sweep(
                machine=machine,
                plan=plan,
                rows=tuple(sorted([*rows, *rest], key=lambda row: row.folder)),
                before=before,
                after=after or conditions(),
            )

        latencies = measure(
            calls,
            plan,
            begun=begun,
            one_thread={
                (index, place)
                for index, place in calls
                if place == "host" and found[index].row.one_thread
            },
            tick=bar("Measuring", len(calls) * (plan.rounds + 1)),
            # Built only to be saved: reading the clock of a GPU takes 0.1 s.
            save=(lambda latencies: save(sweep(latencies))) if save else lambda _: None,
            undecided=undecided,
        )
    return sweep(latencies)


def _reusable(known: Sweep, plan: Plan, grid: Grid, folders: Iterable[Path]) -> dict[Key, Row]:
    """Returns the rows of ``known`` that are complete or can be continued.

    A run is continued as a whole or not at all. Otherwise rows of the same run would have turns
    that were not interleaved, and could no longer be compared.
    """
    names = {folder.relative_to(grid.artifacts).as_posix() for folder in folders}
    begun = [row for row in known.rows if row.latency and not is_done(row, plan)]
    parted = {row.when for row in begun if row.folder not in names or not is_of(row, grid)}
    return {
        row.key: row
        for row in known.rows
        if is_done(row, plan) or (known.plan == plan and row.when not in parted)
    }


def is_of(row: Row, grid: Grid) -> bool:
    """Returns whether ``grid`` includes the batch size, threads and runtime of ``row``."""
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
        if row.folder not in digests or (row.sha256 == digests[row.folder] and not is_of(row, grid))
    ]


def blank(folder: Path, grid: Grid, machine: str, when: str) -> Row:
    """Returns the row of an artifact that is not loaded yet: what its path and the run tell."""
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
