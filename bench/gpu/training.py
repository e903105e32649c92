"""The step that trains small networks: images per second, and what a few epochs reach."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.gpu.budget import Budget
from bench.gpu.rates import FILE, Trained, in_short
from bench.gpu.steps import AGAIN
from bench.gpu.utilisation import watched
from core.conditions import now
from core.errors import UserError, in_words
from core.record_file import append_row, read_rows
from training.data import ImageData
from training.datasets import DEBIAN_FASHION, FASHION_FILES, load_data
from training.fetch import data_folder
from training.recipe import Recipe
from training.recipes import RECIPES, default_recipe

NETWORKS = (
    "mobilenet_v3_large",
    "shufflenet_v2_x1_0",
    "shufflenet_v1_g3",
    "mobilenet_v1",
    "mobilenet_v2",
    "efficientnet_b0",
)
LARGE = 1024  # images per step, beside the recipe's: a GPU has room for more than that
EPOCHS = 3
_STEPS = 20
_EXPECTED = {"run": 10.0, "compiled": 45.0}  # seconds of the first piece of a kind
Kind = Literal["eager", "large", "run", "compiled"]


@dataclass(frozen=True, slots=True)
class Piece:
    """One measurement: rates, eager or compiled, at the recipe's or a large batch, or a run."""

    kind: Kind
    model: str


def pieces(names: Sequence[str] = NETWORKS) -> list[Piece]:
    """Returns all that is to be measured, in the order of its worth."""
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
    """Returns the data set to train on, and in words why it is not Fashion-MNIST, or nothing.

    Nothing is fetched: a machine with a GPU may have no network.
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
    """Returns what was found in one line; ``folder`` has a row for each of ``todo``.

    Args:
        folder: for the rows.
        budget: how long it may take.
        todo: what to measure; left out: :func:`pieces`.
        epochs: of a short run.
        steps: timed steps, in each of three rounds.
        change: of the recipe, for tests.

    Raises:
        UserError: nothing was measured, and why.
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
        if reason := budget.refusal(piece.kind, _EXPECTED.get(piece.kind, 0.0)):
            row = dataclasses.replace(row, reason=reason)
        else:
            before = budget.used
            with budget.piece(piece.kind):
                try:
                    row = _measure(row, piece, data, recipe, steps)
                except Exception as error:  # of one network; the others may do better
                    row = dataclasses.replace(row, reason=in_words(error))
            row = dataclasses.replace(row, seconds=round(budget.used - before, 1))
        append_row(folder / FILE, row)
        print(row)
    rows = read_rows(folder / FILE, Trained, remedy=AGAIN)
    said = "; ".join(filter(None, (in_short(rows), why)))
    if all(row.reason for row in rows):
        raise UserError(said)
    return said


def recipe_for(piece: Piece, data: str, epochs: int) -> Recipe:
    """Returns the recipe of the data, as the piece wants it: bf16, channels last."""
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
    from bench.training.rates import training_rates

    rates = training_rates(piece.model, data, recipe, steps=steps)
    return dataclasses.replace(row, loader=rates.loader, step=rates.step, both=rates.both)


def _short_run(row: Trained, data: ImageData, recipe: Recipe) -> Trained:
    """Returns ``row`` with what a run of a few epochs reaches; it is in ``runs`` then."""
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
