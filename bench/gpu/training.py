"""The step that trains small networks: images per second, and top-1 after a few epochs."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import mean
from typing import IO, Literal

from bench.gpu.check import AGAIN
from bench.gpu.process import Budget
from core.conditions import now
from core.errors import UserError
from core.record_file import append_row, read_rows
from report.format import percent
from report.section import Section, Table
from training.data import ImageData
from training.datasets import DEBIAN_FASHION, FASHION_FILES, load_data
from training.fetch import data_folder
from training.recipe import Recipe
from training.recipes import RECIPES, default_recipe

FILE = "training.jsonl"
_EVERY = 200  # milliseconds
_QUERY = "--query-gpu=utilization.gpu"
NETWORKS = (
    "mobilenet_v3_large",
    "shufflenet_v2_x1_0",
    "shufflenet_v1_g3",
    "mobilenet_v1",
    "mobilenet_v2",
    "efficientnet_b0",
)
LARGE = 1024  # batch size, besides the recipe's, which does not fill a GPU
EPOCHS = 3
_STEPS = 20
_EXPECTED = {"run": 10.0, "compiled": 45.0}  # expected seconds of the first piece of a kind
Kind = Literal["eager", "large", "run", "compiled"]


@dataclass(frozen=True, kw_only=True)
class Trained:
    """The training rates of a network, or the outcome of a short run.

    Attributes:
        model: registry name.
        data: name of the data set.
        size: side of the images in pixels.
        batch: batch size.
        precision: precision of the computation.
        channels_last: whether the memory layout is channels last.
        compile: whether torch.compile was used.
        loader, step, both: images per second of the loader alone, the step alone, and both
            together; a short run has only ``both``, in its last epoch.
        epochs: epochs of a short run; None if only rates were measured.
        top1: held-out top-1 at the end of a short run, in [0, 1].
        utilisation: percentage of a short run during which a kernel ran; None if not measured.
        seconds: duration of the measurement.
        reason: why there are no figures; None if there are.
        when: UTC date and time, ISO 8601.
    """

    model: str
    data: str
    size: int
    batch: int
    precision: str
    channels_last: bool
    compile: bool
    loader: float | None = None
    step: float | None = None
    both: float | None = None
    epochs: int | None = None
    top1: float | None = None
    utilisation: float | None = None
    seconds: float = 0.0
    reason: str | None = None
    when: str


def in_short(rows: Sequence[Trained]) -> str:
    """Returns the fastest step, the best top-1 and the number of missing rows, in one line."""
    rates = [row for row in rows if row.step]
    runs = [row for row in rows if row.top1 is not None]
    missing = [row for row in rows if row.reason]
    parts = []
    if rates:
        best = max(rates, key=lambda row: row.step or 0.0)
        how = "compiled" if best.compile else "eager"
        parts.append(
            f"{len({row.model for row in rates})} networks on {best.data}; fastest step "
            f"{best.step:,.0f} images/s ({best.model}, {how}, batch {best.batch})"
        )
    if runs:
        best = max(runs, key=lambda row: row.top1 or 0.0)
        parts.append(
            f"top-1 {percent(best.top1 or 0.0)} ({best.model}, {best.epochs} epochs, "
            f"{len(runs)} runs)"
        )
    if missing:
        parts.append(f"{len(missing)} not measured ({missing[0].reason})")
    return "; ".join(parts) or "nothing was trained"


def training_section(rows: Sequence[Trained]) -> Section | None:
    """Returns a section with a table of rates and one of short runs; None without rows."""
    if not rows:
        return None
    rates = [row for row in rows if row.epochs is None]
    runs = [row for row in rows if row.epochs is not None]
    same = ("Network", "Data", "Pixels", "Batch", "Precision", "Compiled")
    speeds = ("Loader images/s", "Step images/s", "Both images/s")
    results = ("Epochs", "Top-1", "Images/s", "GPU busy")
    tables = (
        _table(
            (*same, *speeds, "Why"),
            rates,
            lambda row: [_count(one) for one in (row.loader, row.step, row.both)],
        ),
        _table(
            (*same, *results, "Why"),
            runs,
            lambda row: [
                str(row.epochs),
                "-" if row.top1 is None else percent(row.top1),
                _count(row.both),
                "-" if row.utilisation is None else f"{row.utilisation:.0f} %",
            ],
        ),
    )
    return Section(
        title="Training on the GPU",
        sentences=(f"{in_short(rows)}.",),
        tables=tuple(table for table in tables if table.rows),
        notes=(
            "Training: bf16 with float32 weights, channels last. Loader: reading, decoding and "
            "augmenting alone; step: forward, backward and optimiser on batches in memory; both: "
            "as make train does it; medians. Short runs follow the recipe of the data but for "
            "their number of epochs; their top-1 is of the held-out images, and GPU busy is the "
            "share of the time that a kernel ran, as nvidia-smi samples it, start and validation "
            "included.",
        ),
    )


def _table(
    header: tuple[str, ...], rows: Sequence[Trained], figures: Callable[[Trained], list[str]]
) -> Table:
    cells = tuple(
        (
            row.model,
            row.data,
            str(row.size),
            str(row.batch),
            row.precision,
            "yes" if row.compile else "no",
            *figures(row),
            "" if row.reason is None else f"not measured: {row.reason}",
        )
        for row in rows
    )
    text = {"Network", "Data", "Precision", "Compiled", "Why"}
    return Table(header=header, rows=cells, numeric=frozenset(header) - text)


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


@dataclass(slots=True)
class Utilisation:
    """Samples of the first GPU's utilisation: the percentage of time that a kernel ran."""

    samples: list[float] = field(default_factory=list)

    @property
    def mean(self) -> float | None:
        """Returns the mean of the samples; None without samples."""
        return mean(self.samples) if self.samples else None


@contextmanager
def watched(program: str = "nvidia-smi") -> Iterator[Utilisation]:
    """Samples the utilisation during the block; the yielded object is filled after the block.

    It stays empty where nvidia-smi is not installed.
    """
    found = Utilisation()
    path = shutil.which(program)
    if path is None:
        yield found
        return
    command = [path, "--id=0", _QUERY, "--format=csv,noheader,nounits", f"--loop-ms={_EVERY}"]
    with tempfile.TemporaryFile() as file:  # a pipe would fill up, as nothing reads it
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL)
        try:
            yield found
        finally:
            process.kill()
            process.wait()
            found.samples = _samples(file)


def _samples(file: IO[bytes]) -> list[float]:
    file.seek(0)
    samples = []
    for line in file.read().decode(errors="replace").splitlines():
        with suppress(ValueError):  # "[N/A]", or an incomplete line
            samples.append(float(line))
    return samples


@dataclass(frozen=True, slots=True)
class Piece:
    """One measurement.

    Attributes:
        kind: ``eager`` or ``compiled``: rates at the recipe's batch size; ``large``: rates at a
            large batch size; ``run``: a short run.
        model: registry name.
    """

    kind: Kind
    model: str


def pieces(names: Sequence[str] = NETWORKS) -> list[Piece]:
    """Returns all pieces to measure, the most important first."""
    first, rest = names[:2], names[2:]
    order: list[tuple[Kind, Sequence[str]]] = [
        ("eager", names),
        ("run", first),
        ("compiled", first[:1]),
        ("large", names),
        ("run", rest),
        ("compiled", (*first[1:], *rest)),
    ]
    return [Piece(kind, name) for kind, some in order for name in some]


def choose_data() -> tuple[str, str]:
    """Returns the name of the data set, and why it is not Fashion-MNIST (empty if it is).

    Downloads nothing, as the machine may have no network access.
    """
    folders = (DEBIAN_FASHION, data_folder() / "FashionMNIST" / "raw")
    for folder in folders:
        if all((folder / name).is_file() for name in FASHION_FILES):
            return "fashion_mnist", ""
    return "digits", f"Fashion-MNIST is in neither {' nor '.join(map(str, folders))}: digits it is"


def run(
    folder: Path,
    budget: Budget,
    *,
    todo: Sequence[Piece] | None = None,
    epochs: int = EPOCHS,
    steps: int = _STEPS,
    change: Callable[[Recipe], Recipe] = lambda recipe: recipe,
) -> str:
    """Measures ``todo``, writes a row for each into ``folder``; returns a summary in one line.

    Args:
        folder: output folder.
        budget: time for all measurements.
        todo: what to measure; None for :func:`pieces`.
        epochs: number of epochs of a short run.
        steps: number of timed steps in each of three rounds.
        change: changes the recipe, for tests.

    Raises:
        UserError: nothing was measured; the message says why.
    """
    name, why = choose_data()
    data = load_data(name)
    for piece in pieces() if todo is None else todo:
        recipe = change(recipe_for(piece, name, epochs))
        row = Trained(
            model=piece.model,
            data=name,
            size=recipe.crop,
            batch=recipe.batch_size,
            precision=recipe.precision,
            channels_last=recipe.channels_last,
            compile=recipe.compile,
            epochs=epochs if piece.kind == "run" else None,
            when=now(),
        )
        before = budget.used
        work = partial(_measure, row, piece, data, recipe, steps)
        found = budget.attempt(piece.kind, work, _EXPECTED.get(piece.kind, 0.0))
        row = dataclasses.replace(row, reason=found) if isinstance(found, str) else found
        row = dataclasses.replace(row, seconds=round(budget.used - before, 1))
        append_row(folder / FILE, row)
        print(row)
    rows = read_rows(folder / FILE, Trained, remedy=AGAIN)
    said = "; ".join(filter(None, (in_short(rows), why)))
    if all(row.reason for row in rows):
        raise UserError(said)
    return said


def recipe_for(piece: Piece, data: str, epochs: int) -> Recipe:
    """Returns the data set's recipe, adapted to ``piece``, in bf16 and channels last."""
    recipe = RECIPES[default_recipe(piece.model, data)](32)
    large = max(recipe.batch_size, LARGE) if data != "digits" else recipe.batch_size
    return dataclasses.replace(
        recipe,
        epochs=epochs,
        batch_size=large if piece.kind == "large" else recipe.batch_size,
        precision="bf16",
        channels_last=True,
        compile=piece.kind == "compiled",
    )


def _measure(row: Trained, piece: Piece, data: ImageData, recipe: Recipe, steps: int) -> Trained:
    if piece.kind == "run":
        return _short_run(row, data, recipe)
    from bench.training.measure import training_rates

    rates = training_rates(piece.model, data, recipe, steps=steps)
    return dataclasses.replace(row, loader=rates.loader, step=rates.step, both=rates.both)


def _short_run(row: Trained, data: ImageData, recipe: Recipe) -> Trained:
    """Trains for a few epochs (the run is kept in ``runs``); returns ``row`` with the outcome."""
    from training.checkpoint import load_checkpoint
    from training.fit import fit

    with watched() as busy:
        checkpoint = load_checkpoint(fit(row.model, data, recipe))
    return dataclasses.replace(
        row,
        top1=float(checkpoint.metrics["top1"]),
        both=checkpoint.history[-1].images_per_second,
        utilisation=busy.mean,
    )
