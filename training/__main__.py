"""python -m training --model mobilenet_v3 --data digits."""

from __future__ import annotations

from dataclasses import dataclass

import tyro

from models import cli
from models.errors import UserError, closest
from models.registry import find_model
from training.checkpoint import load_checkpoint
from training.data import load_data
from training.recipe import RECIPES, Recipe, default_recipe


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a network on images and write runs/<model>-<data>/checkpoint.ckpt."""

    model: str
    """Network, by its registry name."""
    data: str
    """Data set by name (digits), or a folder with one folder of images per class."""
    recipe_name: str
    """Where the fields of the recipe below start from."""
    recipe: Recipe
    """Every field can be set, such as --recipe.epochs 3."""


@dataclass(frozen=True, kw_only=True)
class _Start:
    """The flags that decide which recipe the others start from."""

    data: str = "digits"
    recipe_name: str | None = None


def _parse() -> Train:
    start, _ = tyro.cli(_Start, return_unknown_args=True, add_help=False)
    name = start.recipe_name or default_recipe(start.data)
    if name not in RECIPES:
        raise UserError(f"unknown recipe {name!r}: {closest(name, RECIPES)}")
    default = Train(model=tyro.MISSING, data=tyro.MISSING, recipe_name=name, recipe=RECIPES[name]())
    return tyro.cli(Train, default=default, prog="python -m training")


def main() -> None:
    """Trains, then prints the last line of the curve and the checkpoint's path."""
    args = _parse()
    find_model(args.model)
    args.recipe.check()
    data = load_data(args.data)
    notes = cli.notes()
    notes.print(
        f"{args.model} on {data.name}: {len(data.train):,} images to learn from, "
        f"{len(data.val):,} held out, {len(data.labels)} classes"
    )
    from training.fit import fit  # torch and Lightning: after everything that can be wrong

    path = fit(args.model, data, args.recipe)
    metrics = load_checkpoint(path).metrics
    print(
        f"epoch {args.recipe.epochs}/{args.recipe.epochs}: loss {metrics['loss']:.3f}, "
        f"held-out top-1 {metrics['top1']:.1%} on {metrics['images']:,} images"
    )
    print(path)


if __name__ == "__main__":
    cli.run(main)
