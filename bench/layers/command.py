"""``python -m bench layers``, ``roofline`` and ``predict``: where time goes, and what bounds it."""

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
    """Show where the milliseconds of a network go, layer by layer, against where its MACs are."""

    model: tyro.conf.Positional[str]
    """Network, by its registry name."""
    format: Literal["onnx-fp32", "onnx-fp16", "onnx-int8"] = "onnx-fp32"
    """Which of its artifacts."""
    batch: int = 1
    """Images per call."""
    threads: int = 1
    """CPU threads inside one call."""
    runs: int = 100
    """Calls that are looked at."""

    def __call__(self) -> None:
        """Prints the kinds of layers, the slowest ones and where the report is."""
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
    """The flags of commands that profile many networks."""

    threads: int = 1
    """CPU threads inside one call."""
    fresh: bool = False
    """Profile all of it anew; else what was profiled before of the same artifacts is reused."""


@dataclass(frozen=True, kw_only=True)
class Roofline(ProfileFlags):
    """Measure what this machine does at most, and how far networks are from it, and why."""

    model: str | None = None
    """Only this network; all if left out."""
    batch: int = 1
    """Images per call."""

    def __call__(self) -> None:
        """Prints how far each network is from its lower limit, and the peaks."""
        grid = self.grid(model=self.model, batches=(self.batch,), threads=(self.threads,))
        found = profile(load_graphs(grid), grid.batches, self.threads, self.out, fresh=self.fresh)
        print_section(roofline_section(found.roofs, found.missing))


@dataclass(frozen=True, kw_only=True)
class Predict(ProfileFlags):
    """Predict each network from the layers of other families, and say how far off that is."""

    batches: tuple[int, ...] = (1, 8)
    """Images per call."""

    def __call__(self) -> None:
        """Prints the errors, and each prediction."""
        grid = self.grid(batches=self.batches, threads=(self.threads,))
        graphs = load_graphs(grid)
        check_families(family(graph.model) for graph in graphs)  # before minutes of profiling
        found = profile(graphs, grid.batches, self.threads, self.out, fresh=self.fresh)
        for one in found.missing:
            results().print(f"left out: {one.network} {one.artifact}: {one.reason}")
        print_section(predict(found.roofs))
