"""``python -m bench layers``, ``roofline`` and ``predict``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tyro

from artifact.artifact import Artifact
from bench.experiment import print_section, this_machine
from bench.latency.plan import GridFlags, find_artifacts
from bench.layers.explanation import load_graphs, predict, profile
from bench.layers.measure import measure_layers
from bench.layers.peaks import measure_peaks
from bench.layers.prediction import check_families, family
from bench.layers.roofline import doubt, roof
from bench.layers.sections import (
    limit_sentence,
    roofline_section,
    sentence,
    show_layers,
    title,
    where,
    write_layers,
)
from core.cli import results
from core.errors import UserError
from report.terminal import print_table


@dataclass(frozen=True, kw_only=True)
class Layers(GridFlags):
    """Show the time and the MACs of a network, layer by layer."""

    model: tyro.conf.Positional[str]
    """Network, by its registry name."""
    format: Literal["onnx-fp32", "onnx-fp16", "onnx-int8"] = "onnx-fp32"
    """Which of its artifacts."""
    batch: int = 1
    """Batch size."""
    threads: int = 1
    """CPU threads inside one call."""
    runs: int = 100
    """Number of profiled calls."""

    def __call__(self) -> None:
        """Writes the page, and prints kinds of layers, the slowest layers and the page's path."""
        grid = self.grid(model=self.model, batches=(self.batch,), threads=(self.threads,))
        folders = [folder for folder in find_artifacts(grid) if folder.name == self.format]
        if len(folders) != 1:
            found = ", ".join(map(str, folders)) or "none"
            raise UserError(
                f"{self.artifacts}: one {self.format} artifact of {self.model} is wanted, there is "
                f"{found}; name its data with --data, or make it with: make export"
            )
        times = measure_layers(
            Artifact.load(folders[0]), batch=self.batch, threads=self.threads, runs=self.runs
        )
        bounded = roof(times, measure_peaks("ort-cpu", self.threads))
        machine = this_machine()
        out = results()
        out.print(title(times))
        out.print(where(times, machine))
        for table in show_layers(bounded):
            print_table(table)
            out.print()
        out.print(sentence(times))
        out.print(limit_sentence(bounded))
        if reason := doubt(times):
            out.print(f"Do not rely on these: {reason}.")
        print(write_layers(bounded, machine, self.out))


@dataclass(frozen=True, kw_only=True)
class ProfileFlags(GridFlags):
    """Flags that the commands that profile many networks have in common."""

    threads: int = 1
    """CPU threads inside one call."""
    fresh: bool = False
    """Profile all artifacts again; otherwise stored profiles of the same artifacts are reused."""


@dataclass(frozen=True, kw_only=True)
class Roofline(ProfileFlags):
    """Measure the peak rates of this machine, and how far networks are from their rooflines."""

    model: str | None = None
    """Only this network; all if left out."""
    batch: int = 1
    """Batch size."""

    def __call__(self) -> None:
        """Prints the ratio of each network's latency to its lower limit, and the peaks."""
        grid = self.grid(model=self.model, batches=(self.batch,), threads=(self.threads,))
        found = profile(load_graphs(grid), grid.batches, self.threads, self.out, fresh=self.fresh)
        print_section(roofline_section(found.roofs, found.missing))


@dataclass(frozen=True, kw_only=True)
class Predict(ProfileFlags):
    """Predict the latency of each network from the layers of other families."""

    batches: tuple[int, ...] = (1, 8)
    """Batch sizes."""

    def __call__(self) -> None:
        """Prints each prediction and the errors."""
        grid = self.grid(batches=self.batches, threads=(self.threads,))
        graphs = load_graphs(grid)
        check_families(family(graph.model) for graph in graphs)  # before minutes of profiling
        found = profile(graphs, grid.batches, self.threads, self.out, fresh=self.fresh)
        for one in found.missing:
            results().print(f"left out: {one.network} {one.artifact}: {one.reason}")
        print_section(predict(found.roofs))
