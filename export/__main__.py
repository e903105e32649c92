"""python -m export --model mobilenet_v3 --data digits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import tyro
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from models import cli

if TYPE_CHECKING:
    from export.artifact import Artifact
    from export.build import Outcome


@dataclass(frozen=True, kw_only=True)
class Export:
    """Export a network to artifacts in artifacts/<model>-<data>/, each checked against torch."""

    model: str
    """Network, by its registry name."""
    data: str | None = None
    """Data set or folder whose run is exported; left out: published ImageNet weights."""
    weights: Literal["auto", "imagenet", "random"] = "auto"
    """auto: of the run on the data. random: good for latency only."""
    formats: tuple[str, ...] = ()
    """Such as onnx-fp32 onnx-int8; left out: all that need no GPU to build."""
    max_batch: int = 32
    """Largest batch the artifacts take."""


def main() -> int:
    """Exports, prints a row per artifact, and returns 1 if one missed a limit."""
    args = tyro.cli(Export, prog="python -m export", description=Export.__doc__)
    from export.build import ARTIFACTS, DEFAULT_TARGETS, Options, build_artifacts, check_targets
    from export.network import load_network

    targets = args.formats or DEFAULT_TARGETS
    check_targets(targets)
    network = load_network(args.model, args.data, args.weights)
    outcomes = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=cli.notes()) as progress:
        task = progress.add_task(f"export {network.model}", total=len(targets))
        for outcome in build_artifacts(network, targets, Options(max_batch=args.max_batch)):
            outcomes.append(outcome)
            progress.advance(task)
    cli.results().print(_table(f"{network.model}, {network.source.origin}", outcomes))
    for note in filter(None, map(_note, outcomes)):
        cli.results().print(note)
    print(ARTIFACTS / f"{network.model}-{network.data}")
    return int(any(outcome.failed for outcome in outcomes))


def _table(title: str, outcomes: list[Outcome]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("artifact", no_wrap=True)
    table.add_column("precision")
    for name in ("size", "agrees with torch", "largest error", "top-1"):
        table.add_column(name, justify="right")
    table.add_column("checked on")
    for outcome in outcomes:
        if outcome.artifact is None:
            table.add_row(outcome.target, "", "", "", "", "", f"no artifact: {outcome.reason}")
        else:
            table.add_row(*_cells(outcome.artifact))
    return table


def _cells(artifact: Artifact) -> tuple[str, ...]:
    parity, metrics = artifact.parity, artifact.metrics
    return (
        artifact.name,
        artifact.precision,
        f"{artifact.size / 1e6:.1f} MB",
        f"{parity.top1_agreement:.1%}" if parity else "not run",
        f"{parity.relative_error:.1e}" if parity else "not run",
        f"{metrics.top1:.1%}" if metrics else "not measured",
        parity.runtime if parity else f"unverified: {artifact.unverified}",
    )


def _note(outcome: Outcome) -> str | None:
    """Returns how an int8 graph was made, in one line."""
    artifact = outcome.artifact
    if artifact is None or artifact.quantization is None:
        return None
    made = artifact.quantization
    figure = "top-1" if made.labelled else "agreement"
    tried = ", ".join(f"{name} {top1:.1%}" for name, top1 in made.top1.items())
    fp32 = artifact.fp32_layers
    left = len(fp32)
    layers = f"{left} layers in fp32: {', '.join(fp32)}" if left else "no layer in fp32"
    return (
        f"{outcome.target}: {made.calibration} calibration ({figure} on {made.images} calibration "
        f"images: {tried}), {layers}"
    )


if __name__ == "__main__":
    cli.run(main)
