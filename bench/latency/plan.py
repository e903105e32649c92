"""The artifacts, batch sizes, threads and runtimes to measure."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifact.formats import artifact_names
from artifact.runtimes.base import list_runtimes
from bench.latency.record import is_asked
from core.cores import usable_cores
from core.errors import UserError, closest
from core.names import canonical_name


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """The artifacts, batch sizes, threads and runtimes to measure.

    Attributes:
        artifacts: folder of all artifacts.
        model: only this network; None for all.
        data: only artifacts for this data; None for all.
        batches: batch sizes.
        threads: numbers of CPU threads inside a call; each makes a separate candidate.
        runtimes: only these; empty for all.
        compile: whether to measure torch-compile, which takes minutes to compile a network.
    """

    artifacts: Path
    model: str | None = None
    data: str | None = None
    batches: tuple[int, ...] = (1, 8)
    threads: tuple[int, ...] = (1,)
    runtimes: tuple[str, ...] = ()
    compile: bool = False

    def __post_init__(self) -> None:
        for name in self.runtimes:
            if name not in list_runtimes():
                raise UserError(f"unknown runtime {name!r}: {closest(name, list_runtimes())}")
        if not self.batches or not self.threads or min(*self.batches, *self.threads) < 1:
            raise UserError(
                f"batches are {list(self.batches)}, threads {list(self.threads)}: "
                "each must be at least 1"
            )
        if max(self.threads) > usable_cores():
            raise UserError(
                f"threads are {list(self.threads)}: this machine has {usable_cores()} usable cores"
            )


@dataclass(frozen=True, kw_only=True)
class GridFlags:
    """Flags that all commands that measure artifacts have in common."""

    data: str | None = None
    """Only artifacts for this data; all if left out."""
    artifacts: Path = Path("artifacts")
    """Folder of all artifacts."""
    out: Path = Path("reports")
    """Folder of the records and the report."""

    def grid(self, **asked: Any) -> Grid:
        """Returns the grid with these flags and further fields of :class:`Grid`."""
        return Grid(artifacts=self.artifacts, data=self.data, **asked)


def find_artifacts(grid: Grid) -> list[Path]:
    """Returns the artifact folders that ``grid`` selects by name, sorted; does not validate them.

    Raises:
        UserError: there is none; the message names similar ones, or says how to make one.
    """
    names = set(artifact_names())
    every = sorted(
        path for path in grid.artifacts.rglob("*") if path.is_dir() and path.name in names
    )
    if not every:
        raise UserError(
            f"{grid.artifacts}: no artifacts here; "
            "make some with: make export MODEL=mobilenet_v3 DATA=digits"
        )
    networks = {path: network_of(grid.artifacts, path) for path in every}
    chosen = [p for p, name in networks.items() if is_asked(name, grid.model, grid.data)]
    if not chosen:
        wanted = f"{canonical_name(grid.model or '*')}-{grid.data or '*'}"
        near = closest(wanted, set(networks.values()))
        raise UserError(
            f"{grid.artifacts}: no artifacts of {wanted}: {near}; "
            f"make some with: make export MODEL={grid.model or '...'} DATA={grid.data or '...'}"
        )
    return chosen


def network_of(artifacts: Path, folder: Path) -> str:
    """Returns ``<model>-<data>`` of artifact ``folder``, which is inside ``artifacts``."""
    return folder.parent.relative_to(artifacts).as_posix()
