"""Rows of training on a GPU, and their section of the report."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from report.format import percent
from report.section import Section, Table

FILE = "training.jsonl"


@dataclass(frozen=True, kw_only=True)
class Trained:
    """How fast a network trains, or what a short run of it reaches.

    Attributes:
        model: registry name.
        data: what it learns from.
        size: side of its images in pixels.
        batch: images per step.
        precision: of the computation.
        channels_last: memory layout of the weights.
        compile: through torch.compile.
        loader, step, both: images per second of the loader alone, the step alone, and a run; of a
            short run only ``both`` is there, of its last epoch.
        epochs: of a short run; None where only rates were measured.
        top1: held-out, in [0, 1], at the end of a short run.
        utilisation: percent of the time that a kernel ran during a short run; None where it was
            not measured.
        seconds: how long the measurement took.
        reason: why there are no figures; None where there are.
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
    """Returns the fastest step, the best top-1 and what is missing, in one line."""
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
    """Returns the rates and the short runs in two tables; None where there are no rows."""
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
