"""``python -m bench roofline`` and ``predict``: what bounds networks, and what predicts them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.latency.grid import Grid
from bench.layers.explanation import load_graphs, predict, profile
from bench.layers.prediction import check_families, family
from bench.layers.roofline_section import roofline_section
from core.cli import results
from report.section import Section
from report.terminal import print_table


@dataclass(frozen=True, kw_only=True)
class Roofline:
    """Measure what this machine does at most, and how far networks are from it, and why."""

    model: str | None = None
    """Only this network; all if left out."""
    data: str | None = None
    """Only artifacts for this data; all if left out."""
    artifacts: Path = Path("artifacts")
    """Folder of all artifacts."""
    out: Path = Path("reports")
    """Folder that keeps layers.jsonl and peaks.json."""
    batch: int = 1
    """Images per call."""
    threads: int = 1
    """CPU threads inside one call."""
    fresh: bool = False
    """Profile all of it anew; else what was profiled before of the same artifacts is reused."""

    def __call__(self) -> None:
        """Prints how far each network is from its lower limit, and the peaks."""
        grid = Grid(
            artifacts=self.artifacts,
            model=self.model,
            data=self.data,
            batches=(self.batch,),
            threads=(self.threads,),
        )
        found = profile(load_graphs(grid), grid.batches, self.threads, self.out, fresh=self.fresh)
        print_section(roofline_section(found.roofs, found.missing))


@dataclass(frozen=True, kw_only=True)
class Predict:
    """Predict each network from the layers of other families, and say how far off that is."""

    data: str | None = None
    """Only artifacts for this data; all if left out."""
    artifacts: Path = Path("artifacts")
    """Folder of all artifacts."""
    out: Path = Path("reports")
    """Folder that keeps layers.jsonl and peaks.json."""
    batches: tuple[int, ...] = (1, 8)
    """Images per call."""
    threads: int = 1
    """CPU threads inside one call."""
    fresh: bool = False
    """Profile all of it anew; else what was profiled before of the same artifacts is reused."""

    def __call__(self) -> None:
        """Prints the errors, and each prediction."""
        grid = Grid(
            artifacts=self.artifacts,
            data=self.data,
            batches=self.batches,
            threads=(self.threads,),
        )
        graphs = load_graphs(grid)
        check_families(family(graph.model) for graph in graphs)  # before minutes of profiling
        found = profile(graphs, grid.batches, self.threads, self.out, fresh=self.fresh)
        for one in found.missing:
            results().print(f"left out: {one.network} {one.artifact}: {one.reason}")
        print_section(predict(found.roofs))


def print_section(section: Section) -> None:
    """Prints the tables, then the sentences of ``section``."""
    for table in section.tables:
        print_table(table)
    for sentence in section.sentences:
        results().print(sentence)
