"""Six variations of one small ResNet: ``python -m bench study ablation``."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from statistics import median_high
from typing import Any

import altair as alt

from bench.experiment import this_machine, write_page
from core.errors import UserError
from core.record_file import read_rows, write_rows
from models.cost import known_costs
from report.format import percent, plural
from report.section import Figure, Section, Table
from training.checkpoint import checkpoint_path, load_checkpoint, run_folder
from training.folder import find_folder, folder_name
from training.run import PartialRun

NETWORKS = (
    "resnet14",
    "resnet14_g2",
    "resnet14_g4",
    "resnet14_dense",
    "resnet14_separable",
    "resnet14_se",
)
DATA = ("fashion_mnist", "cifar10")
# The published experiment that this repeats: CIFAR-10, 80 epochs, Adam 1e-3, batch 100, GTX 1070.
# params (thousands), training s, test s, top-1 %.
PRINTED = {
    "resnet14": (195, 665, 0.34, 87),
    "resnet14_g2": (99, 727, 0.40, 85),
    "resnet14_g4": (50, 834, 0.50, 81),
    "resnet14_dense": (341, 703, 0.43, 88),
    "resnet14_separable": (27, 788, 0.40, 84),
    "resnet14_se": (201, 838, 0.51, 87),
}
PRINTED_EPOCHS = 80


@dataclass(frozen=True, kw_only=True, slots=True)
class AblationRow:
    """The training of one network, measured here.

    Attributes:
        network: registry name.
        parameters: number of parameters of the torch network.
        macs: multiply-accumulates per image.
        epochs: number of epochs.
        peak_bytes: peak memory in training, of tensors on a GPU, or of the process on a CPU.
        train_seconds: duration of all epochs, including loading.
        cpu_seconds: CPU time of the whole training; None if it was resumed, or on a GPU.
        test_seconds: duration of one pass over the held-out images, median over the epochs.
        top1: held-out top-1 after the last epoch, in [0, 1].
        machine: the fields of :class:`core.machine.Machine`.
        date: date of the training, ISO 8601.
    """

    network: str
    parameters: int
    macs: int
    epochs: int
    peak_bytes: int
    train_seconds: float
    test_seconds: float
    top1: float
    machine: dict[str, Any]
    date: str
    cpu_seconds: float | None = None


def run(name: str, out: Path, *, data: str = DATA[0], epochs: int = PRINTED_EPOCHS) -> Path:
    """Runs the study (:func:`run_ablation`), writes its page and returns the page's path."""
    rows = list(run_ablation(data, epochs=epochs, out=out))
    data = _data_name(data)
    return write_page(ablation_section(data, rows), out / f"{name}-{data}.md")


def run_ablation(data: str, *, epochs: int, out: Path) -> Iterator[AblationRow]:
    """Yields a row per network, from ``out/ablation-<data>.jsonl``, or trained and added to it.

    Each network is trained in a separate process, so that peak memory is that of one network. An
    unfinished training is resumed. ``data`` is in :data:`DATA`, or a folder of images.

    Raises:
        UserError: there is no such data, or a training failed.
    """
    file = out / f"ablation-{_data_name(data)}.jsonl"
    rows = {(row.network, row.epochs): row for row in read_rows(file, AblationRow)}
    for network in NETWORKS:
        if (network, epochs) not in rows:
            rows[network, epochs] = _train(network, data, epochs)
            write_rows(file, rows.values())
        yield rows[network, epochs]


def _training_times(rows: Sequence[AblationRow]) -> tuple[str, list[float]]:
    """Returns a clock's name and its seconds; of two, the one that other work changes less."""
    cpu = [row.cpu_seconds for row in rows if row.cpu_seconds is not None]
    if len(cpu) == len(rows):
        return "train CPU s", cpu
    return "train s", [row.train_seconds for row in rows]


def _data_name(data: str) -> str:
    return data if data in DATA else folder_name(find_folder(data, DATA))


def ablation_section(data: str, rows: Sequence[AblationRow]) -> Section:
    """Returns the section with the measured and the printed figures."""
    first = rows[0]
    machine = first.machine
    device = machine["gpu"] or f"{machine['cpu']}, {machine['cores']} cores"
    memory = "that of tensors on the GPU" if machine["gpu"] else "the whole process's"
    clock, times = _training_times(rows)
    header = (
        *("network", "params", "M MACs", "peak MB", clock, "x resnet14", "test s", "top-1"),
        *("printed: params k", "train s", "x resnet14", "test s", "top-1"),
    )
    cells = []
    for row, seconds in zip(rows, times, strict=True):
        params, train, test, top1 = PRINTED[row.network]
        cells.append(
            (
                *(row.network, f"{row.parameters:,}", f"{row.macs / 1e6:.1f}"),
                *(f"{row.peak_bytes / 1e6:,.0f}", f"{seconds:,.1f}", f"{seconds / times[0]:.2f}"),
                *(f"{row.test_seconds:.2f}", percent(row.top1), str(params), str(train)),
                *(f"{train / PRINTED['resnet14'][1]:.2f}", str(test), f"{top1} %"),
            )
        )
    return Section(
        title=f"Six variations of resnet14 on {data}",
        sentences=(
            f"{plural(first.epochs, 'epoch')} (Adam 1e-3, batch 100, 32x32) on {device}, torch "
            f"{machine['versions']['torch']}, {first.date}. Peak memory is {memory}. What is "
            f"printed is for CIFAR-10, {PRINTED_EPOCHS} epochs, GTX 1070: compare ratios, not "
            "values.",
        ),
        figures=(
            Figure(
                title=f"Training time does not follow MACs: resnet14 and its variations on {data}",
                caption="MACs and training times as multiples of resnet14's.",
                chart=_chart(rows),
            ),
        ),
        tables=(Table(header=header, rows=tuple(cells), numeric=frozenset(header[1:])),),
    )


def _chart(rows: Sequence[AblationRow]) -> alt.Chart:
    first, times = rows[0], _training_times(rows)[1]
    order = ["MACs", "training time, here", "training time, printed"]
    values = []
    for row, seconds in zip(rows, times, strict=True):
        printed = PRINTED[row.network][1] / PRINTED["resnet14"][1]
        ratios = (row.macs / first.macs, seconds / times[0], printed)
        values += [
            {"network": row.network, "what": what, "x": ratio}
            for what, ratio in zip(order, ratios, strict=True)
        ]
    colours = alt.Scale(range=["#b8bfc8", "#1f6f8b", "#e08e45"])
    chart: alt.Chart = (
        alt.Chart(alt.Data(values=values))
        .mark_bar(cornerRadiusEnd=2)
        .encode(
            y=alt.Y("network:N", sort=list(NETWORKS), title=None),
            yOffset=alt.YOffset("what:N", sort=order),
            x=alt.X("x:Q", title="multiple of resnet14's"),
            color=alt.Color("what:N", sort=order, title=None, scale=colours),
        )
        .properties(height={"step": 16})
    )
    return chart


def _train(network: str, data: str, epochs: int) -> AblationRow:
    run = run_folder(network, _data_name(data))
    flags = ["--model", network, "--data", data, "--recipe-name", "ablation"]
    flags += ["--recipe.epochs", str(epochs)]
    resumed = PartialRun(run).last.exists()
    flags += ["--resume"] if resumed else []
    before = _children_cpu_seconds()
    if subprocess.run([sys.executable, "-m", "training", *flags], stdout=sys.stderr).returncode:
        raise UserError(f"{network} could not be trained; the rows before it are kept")
    cpu_seconds = _children_cpu_seconds() - before
    machine = this_machine()
    checkpoint = load_checkpoint(checkpoint_path(run))
    cost = known_costs()[network]
    return AblationRow(
        network=network,
        parameters=cost.parameters,
        macs=cost.macs,
        epochs=epochs,
        peak_bytes=int(checkpoint.metrics["peak_bytes"]),
        train_seconds=sum(epoch.train_seconds for epoch in checkpoint.history),
        test_seconds=median_high(epoch.val_seconds for epoch in checkpoint.history),
        top1=checkpoint.metrics["top1"],
        machine=asdict(machine),
        date=date.today().isoformat(),
        cpu_seconds=None if resumed or machine.gpu else cpu_seconds,
    )


def _children_cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
