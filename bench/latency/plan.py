"""The artifacts, batch sizes, threads and runtimes to measure."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from artifact.artifact import Artifact
from artifact.formats import artifact_names
from artifact.runtimes.base import list_runtimes
from artifact.validation import ArtifactError
from bench.latency.record import is_asked
from bench.measure.timing import Plan
from core.cores import usable_cores
from core.errors import UserError, closest
from core.names import canonical_name


@dataclass(frozen=True, kw_only=True, slots=True)
class Grid:
    """The artifacts, batch sizes, threads and runtimes to measure.

    Attributes:
        artifacts: folder of all artifacts.
        network: only the artifacts in this folder inside it; None for all.
        model: only this network; None for all.
        data: only artifacts for this data; None for all.
        batches: batch sizes.
        threads: numbers of CPU threads inside a call; each makes a separate candidate.
        runtimes: only these; empty for all.
        compile: whether to measure torch-compile, which takes minutes to compile a network.
    """

    artifacts: Path
    network: str | None = None
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
    """Folder of all artifacts, or of one network's."""
    out: Path = Path("reports")
    """Folder of the records and the report."""

    def grid(self, **asked: Any) -> Grid:
        """Returns the grid with these flags and further fields of :class:`Grid`."""
        root, network = _split(self.artifacts)
        return Grid(artifacts=root, network=network, data=self.data, **asked)


def _split(folder: Path) -> tuple[Path, str | None]:
    """Returns the folder of all artifacts that ``folder`` is in, and its name there.

    The name is None where ``folder`` is that of all artifacts itself.
    """
    names = artifact_names()
    own = [path for path in sorted(folder.glob("*")) if path.name in names]
    if not own:
        return folder, None
    folder, depth = folder.resolve(), 1  # "." has no name
    with suppress(ArtifactError):  # its row will say why
        artifact = Artifact.load(own[0])
        named = Path(f"{artifact.model}-{artifact.data}").parts  # timm/... are two
        depth = len(named) if folder.parts[-len(named) :] == named else 1
    root = folder.parents[depth - 1]
    return root, folder.relative_to(root).as_posix()


@dataclass(frozen=True, kw_only=True)
class PlanFlags:
    """Flags that say how much to measure of each candidate; see :class:`Plan`."""

    count: int = 100
    """Least number of samples of a candidate."""
    seconds: float = 3.0
    """Least total time of a candidate's samples, in seconds."""
    limit: float = 3.0
    """Total time in seconds at which a slow candidate stops with fewer samples."""
    rounds: int = 12
    """Number of rounds; each candidate has a turn in each."""
    seed: int = 0
    """Random seed of the order of the turns."""

    def plan(self) -> Plan:
        """Returns the plan with these flags."""
        return Plan(
            count=self.count,
            seconds=self.seconds,
            limit=self.limit,
            rounds=self.rounds,
            seed=self.seed,
        )


def find_artifacts(grid: Grid) -> list[Path]:
    """Returns the artifact folders that ``grid`` selects by name, sorted; does not validate them.

    Raises:
        UserError: there is none; the message names similar ones, or says how to make one.
    """
    names = set(artifact_names())
    every = sorted(
        path
        for path in (grid.artifacts / (grid.network or "")).rglob("*")
        if path.is_dir() and path.name in names
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
