"""``python -m bench run`` and ``report``: measure artifacts, and show what was measured."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from artifact.runtimes.base import RUNTIMES
from bench.latency.grid import Grid
from bench.latency.pick import pick_all, write_pick
from bench.latency.show import show
from bench.latency.sweep import run_sweep
from bench.latency.sweep_file import earlier_sweep, read_sweep, write_sweep
from bench.layers.explanation import load_graphs, profile
from bench.measure.timing import Plan


@dataclass(frozen=True, kw_only=True)
class Run:
    """Measure every artifact in every runtime, pick the fastest to serve, write the report."""

    model: str | None = None
    """Only this network; all if left out."""
    data: str | None = None
    """Only artifacts for this data; all if left out."""
    artifacts: Path = Path("artifacts")
    """Folder of all artifacts."""
    out: Path = Path("reports")
    """Folder for latency.jsonl, .html, .png and .md."""
    batches: tuple[int, ...] = (1, 8)
    """Images per call."""
    threads: tuple[int, ...] = (1,)
    """CPU threads inside one call; several are measured beside each other."""
    runtimes: tuple[str, ...] = ()
    """Only these runtimes; all if left out."""
    compile: bool = False
    """Measure torch-compile, too: it compiles each network for each batch size, for minutes."""
    count: int = 100
    """Least number of samples of a candidate."""
    seconds: float = 3.0
    """Least sum of a candidate's samples."""
    limit: float = 3.0
    """Sum of its samples at which a slow candidate stops with fewer."""
    rounds: int = 12
    """Turns of a candidate."""
    seed: int = 0
    """Decides the order of the turns."""
    fresh: bool = False
    """Measure all of it anew; else what was measured before of the same artifacts is reused."""
    all: bool = False
    """Print all rows and all that the report says, where a screen has no room for them."""
    quick: bool = False
    """A first look in under a minute: batch 1 in ONNX Runtime and on GPUs, 30 samples or 0.2 s
    in 5 rounds. Torch and OpenVINO alone take a minute to load twelve networks."""

    def __call__(self) -> None:
        """Measures, and prints a table and where the report is."""
        plan = Plan(
            count=self.count,
            seconds=self.seconds,
            limit=self.limit,
            rounds=self.rounds,
            seed=self.seed,
        )
        if self.quick:
            plan = dataclasses.replace(plan, count=30, seconds=0.1, limit=0.2, rounds=5)
        quick = tuple(name for name, spec in RUNTIMES.items() if spec.quick)
        grid = Grid(
            artifacts=self.artifacts,
            model=self.model,
            data=self.data,
            batches=(1,) if self.quick else self.batches,
            threads=self.threads,
            runtimes=self.runtimes or (quick if self.quick else ()),
            compile=self.compile,
        )
        sweep = run_sweep(
            grid,
            plan,
            known=earlier_sweep(self.out, fresh=self.fresh),
            fresh=self.fresh,
            save=lambda sweep: write_sweep(sweep, self.out),
        )
        write_sweep(sweep, self.out)
        sweep = sweep.only(self.model, self.data)
        if not self.quick:
            graphs, threads = load_graphs(grid), min(grid.threads)
            profile(graphs, grid.batches, threads, self.out, sweep=sweep, fresh=self.fresh)
        for chosen in pick_all(sweep).values():
            write_pick(sweep, chosen, self.artifacts)
        show(sweep, self.out, every=self.all)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Write the report again from what was measured."""

    model: str | None = None
    """Only this network; all if left out."""
    data: str | None = None
    """Only artifacts for this data; all if left out."""
    out: Path = Path("reports")
    """Folder that holds latency.jsonl."""
    all: bool = False
    """Print all rows and all that the report says, where a screen has no room for them."""

    def __call__(self) -> None:
        """Writes the report and prints the table."""
        show(read_sweep(self.out).only(self.model, self.data), self.out, every=self.all)
