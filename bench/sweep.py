"""Every artifact in every runtime at every batch size, measured by turns in one run.

What cannot run is a row with its reason: nothing falls back to something else.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar, cast, get_args

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)

from bench.rows import Row, Sweep
from bench.timing import Call, Plan, measure
from export.artifact import MODEL_FILES, Artifact
from export.golden import check_golden, golden_pixels
from export.records import Format, Precision
from export.runtimes.base import Runtime, list_runtimes, load_runtime
from models.cli import notes
from models.errors import UserError, closest
from models.machine import this_machine
from models.registry import canonical_name

T = TypeVar("T")

_COLUMNS = (
    TextColumn("{task.description}"),
    BarColumn(),
    MofNCompleteColumn(),
    TimeElapsedColumn(),
)
_ARTIFACT_NAMES = {
    f"{form}-{precision}" for form in MODEL_FILES for precision in get_args(Precision)
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """What to measure.

    Attributes:
        artifacts: folder of all artifacts.
        model: only this network; None means all.
        data: only artifacts for this data; None means all.
        batches: images per call.
        threads: CPU threads inside one call, the same for all: torch knows one number per process.
    """

    artifacts: Path
    model: str | None = None
    data: str | None = None
    batches: tuple[int, ...] = (1, 8)
    threads: int = 1

    def __post_init__(self) -> None:
        if not self.batches or min(self.batches) < 1 or self.threads < 1:
            raise UserError(
                f"batches are {list(self.batches)}, threads {self.threads}: each must be at least 1"
            )


def find_artifacts(grid: Grid) -> list[Path]:
    """Returns the folders named like an artifact that ``grid`` asks for, sound or not, sorted.

    Raises:
        UserError: there is none; the message says what there is, or how to make one.
    """
    every = sorted(
        path for path in grid.artifacts.rglob("*") if path.is_dir() and path.name in _ARTIFACT_NAMES
    )
    if not every:
        raise UserError(
            f"{grid.artifacts}: no artifacts here; "
            "make some with: make export MODEL=mobilenet_v3 DATA=digits"
        )
    start = "" if grid.model is None else f"{canonical_name(grid.model)}-"
    end = "" if grid.data is None else f"-{grid.data}"
    networks = {path: _network(grid.artifacts, path) for path in every}
    chosen = [p for p, name in networks.items() if name.startswith(start) and name.endswith(end)]
    if not chosen:
        wanted = f"{start or '*-'}{end.removeprefix('-') or '*'}"
        near = closest(wanted, set(networks.values()))
        raise UserError(
            f"{grid.artifacts}: no artifacts of {wanted}: {near}; "
            f"make some with: make export MODEL={grid.model or '...'} DATA={grid.data or '...'}"
        )
    return chosen


def run_sweep(grid: Grid, plan: Plan) -> Sweep:
    """Returns a row for every candidate of ``grid``; those that run are measured together.

    Raises:
        UserError: there are no artifacts (:func:`find_artifacts`).
    """
    folders = find_artifacts(grid)
    machine = this_machine()
    when = datetime.now(UTC).isoformat(timespec="seconds")
    found: list[tuple[Row, Call | None]] = []
    # Drawn only between turns: a refreshing thread would take its time out of the samples.
    with Progress(*_COLUMNS, console=notes(), auto_refresh=False) as progress, ExitStack() as stack:
        loading = progress.add_task("Loading", total=len(folders))
        for folder in folders:
            row = _blank(folder, grid, machine.key, when)
            progress.update(loading, description=f"Loading {row.folder}", refresh=True)
            found += _load(row, folder, grid, stack)
            progress.update(loading, advance=1, description="Loading", refresh=True)
        calls = {index: call for index, (_, call) in enumerate(found) if call}
        measuring = progress.add_task("Measuring", total=len(calls) * (plan.rounds + 1))
        tick = partial(progress.update, measuring, advance=1, refresh=True)
        latencies = measure(calls, plan, tick=tick)
    rows = [replace(row, latency=latencies.get(index)) for index, (row, _) in enumerate(found)]
    return Sweep(machine=machine, plan=plan, rows=tuple(rows))


def _load(row: Row, folder: Path, grid: Grid, stack: ExitStack) -> list[tuple[Row, Call | None]]:
    """Returns the rows of one artifact, each with what to time or, in the row, why nothing."""
    artifact = _attempt(lambda: Artifact.load(folder))
    if isinstance(artifact, str):
        return [(replace(row, batch=batch, reason=artifact), None) for batch in grid.batches]
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
        unverified=artifact.unverified,
    )
    found: list[tuple[Row, Call | None]] = []
    for name in list_runtimes(artifact.format):
        if name == "torch" and artifact.precision != "fp32":
            continue  # torch runs the network's source, which is the same behind every precision
        runtime = _attempt(partial(_open, name, artifact, grid.threads, stack))
        for batch in grid.batches:
            call: Call | str
            if isinstance(runtime, str):
                call = runtime
            else:
                call = _attempt(partial(_first_call, runtime, artifact, batch))
            here = replace(row, runtime=name, batch=batch)
            if isinstance(call, str):
                found.append((replace(here, reason=call), None))
            else:
                found.append((here, call))
    return found


def _open(name: str, artifact: Artifact, threads: int, stack: ExitStack) -> Runtime:
    """Returns a runtime that reproduced the golden batch; ``stack`` will close it."""
    with ExitStack() as own:
        runtime = own.enter_context(load_runtime(name, artifact, threads=threads))
        check_golden(runtime, artifact)
        stack.enter_context(own.pop_all())
    return runtime


def _first_call(runtime: Runtime, artifact: Artifact, batch: int) -> Call:
    """Returns a call on ``batch`` golden images, repeated as needed, that has worked once."""
    pixels = golden_pixels(artifact, batch)
    runtime(pixels)
    return partial(runtime, pixels)


def _attempt(work: Callable[[], T]) -> T | str:
    """Returns what ``work`` returns, or in words why it could not."""
    try:
        return work()
    except UserError as error:
        return str(error)
    except Exception as error:  # native runtimes raise what they like; one must not end the sweep
        first = (str(error).strip() or "no message").splitlines()[0]
        return f"{type(error).__name__}: {first}"


def _blank(folder: Path, grid: Grid, machine: str, when: str) -> Row:
    """Returns what is known of an artifact before it is read: its place, and the run's facts."""
    network = _network(grid.artifacts, folder)
    model, _, data = network.partition("-")
    form, _, precision = folder.name.rpartition("-")
    return Row(
        model=model,
        data=data,
        folder=f"{network}/{folder.name}",
        format=cast(Format, form),
        precision=cast(Precision, precision),
        runtime=None,
        batch=grid.batches[0],
        threads=grid.threads,
        machine=machine,
        when=when,
    )


def _network(artifacts: Path, folder: Path) -> str:
    return folder.parent.relative_to(artifacts).as_posix()
