"""Every artifact in every runtime at every batch size, interleaved in one run.

What cannot run is a row with its reason: nothing falls back to something else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import cast

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from artifact.records import Precision
from bench.latency.candidates import Candidate, is_done, load_candidates
from bench.latency.grid import Grid, find_artifacts, network_of
from bench.latency.rows import Key, Place, Row, Sweep
from bench.measure.machine import this_machine
from bench.measure.timing import Latency, Plan, measure
from core.cli import notes
from core.conditions import conditions

_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
)


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
    # Drawn only between turns: a refreshing thread would take its time out of the samples.
    with Progress(*_COLUMNS, console=notes(), auto_refresh=False) as progress, ExitStack() as stack:
        loading = progress.add_task("Loading", total=len(folders))
        blanks = [_blank(folder, grid, machine.key, before.when) for folder in folders]
        # On a GPU one by one: CUDA forbids much in all threads while one captures a graph.
        with ThreadPoolExecutor(1 if machine.gpu else machine.cores) as pool:
            for some in pool.map(
                lambda row: load_candidates(row, grid, plan, earlier, stack), blanks
            ):
                found += some
                progress.update(loading, advance=1, refresh=True)
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

        measuring = progress.add_task("Measuring", total=len(calls) * (plan.rounds + 1))
        latencies = measure(
            calls,
            plan,
            begun=begun,
            tick=partial(progress.update, measuring, advance=1, refresh=True),
            # To ask a GPU for its clock takes a tenth of a second: only where it is kept.
            save=(lambda latencies: save(sweep(latencies))) if save else lambda _: None,
        )
    return sweep(latencies)


def _reusable(known: Sweep, plan: Plan, grid: Grid, folders: Iterable[Path]) -> dict[Key, Row]:
    """Returns the rows of ``known`` that are as ``plan`` asks, or go on from where they stopped.

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
    """Returns the rows of ``known`` that this run has nothing to say about."""
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
