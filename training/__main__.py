"""python -m training --model mobilenet_v3 --data digits."""

from __future__ import annotations

import shlex
import sys
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console

from core import cli
from core.errors import UserError
from core.names import canonical_name
from models.registry import find_model
from training.accelerators import Accelerators, is_first_process
from training.data import ImageData
from training.datasets import DATASETS, data_name, load_data
from training.folds import check_folds, runs_of
from training.look import look
from training.options import FolderOptions, LoggerName, check_restart
from training.qat.names import qat_name
from training.recipe import Recipe
from training.recipes import RECIPES, check_recipe_name, default_recipe, find_recipe
from training.records import MONITORS

_DATA = (
    f"Data set by name ({', '.join(DATASETS)}), or a folder: one folder of images per class, or "
    "train/, val/ and test/ that hold them, or images that --labels names."
)


@dataclass(frozen=True, kw_only=True)
class Train(FolderOptions):
    """Train a network on images and write runs/<model>-<data>/."""

    model: str
    """Registry name of the network."""
    data: Annotated[str, tyro.conf.arg(help=_DATA)]
    recipe_name: str
    """Recipe with the defaults of the fields below."""
    resume: bool = False
    """Resume the unfinished run of this network and data from its last complete epoch."""
    fresh: bool = False
    """Start again where there is a run of this network and data: an unfinished one is discarded, a
    finished one replaced when the new one is finished."""
    find_learning_rate: bool = False
    """Print the loss of 100 steps at learning rates from 1e-6 to 1, and the rate at which it falls
    fastest, instead of training."""
    log: tuple[LoggerName, ...] = ("tensorboard",)
    """Where the figures of steps and epochs go besides the run's own files; wandb and mlflow are
    extras of the package."""
    machine: Accelerators = field(default_factory=Accelerators)
    """Devices to train on."""
    recipe: Recipe
    """Every field can be set, such as --recipe.epochs 3."""


@dataclass(frozen=True, kw_only=True)
class _Start(FolderOptions):
    """The flags on which the defaults of the others depend."""

    model: str = ""
    data: str = ""
    recipe_name: str | None = None
    resume: bool = False
    fresh: bool = False
    find_learning_rate: bool = False


def _parse() -> Train:
    """Returns the flags; a resumed run uses its saved values for omitted flags.

    No image is read: a mistyped flag of a large folder is told at once.
    """
    start, _ = tyro.cli(_Start, return_unknown_args=True, add_help=False)
    check_restart(resume=start.resume, fresh=start.fresh)
    if start.model:
        find_model(start.model)
    name = start.recipe_name
    if name is not None:
        check_recipe_name(name)
    options = _options(start)
    check_folds(options)
    data = data_name(start.data) + options.suffix if start.data else ""
    recipe: Recipe | None = None
    if start.resume and start.model and data:
        from training.checkpoint import run_folder
        from training.run import PartialRun, read_plan

        first, *more = runs_of(options)
        name_of_run = data + first.suffix if more else _run_of(name, data)
        partial = PartialRun(run_folder(start.model, name_of_run))
        # Of several folds, the first may be finished.
        saved = read_plan(partial.standing) if more and partial.standing else partial.saved_plan()
        if name in (None, saved["recipe_name"]):
            name, recipe = saved["recipe_name"], Recipe(**saved["recipe"])
    if name is None:
        name = default_recipe(start.model, start.data) if start.model else "scratch"
    if recipe is None:
        recipe = find_recipe(name, start.model, data)
    default = Train(model=tyro.MISSING, data=tyro.MISSING, recipe_name=name, recipe=recipe)
    args = tyro.cli(Train, default=default, prog=cli.program("training"))
    args.recipe.check()
    return args


def _load(args: Train) -> ImageData:
    """Loads the data and checks every file, unless a run of the same name is in the way."""
    options, console = _options(args), _notes()
    allowed = args.resume or args.fresh or args.find_learning_rate
    if is_first_process() and not allowed:
        from training.checkpoint import run_folder
        from training.run import PartialRun

        for each in runs_of(options):
            name = _run_of(args.recipe_name, data_name(args.data) + each.suffix)
            PartialRun(run_folder(args.model, name)).check_free()
    return look(load_data(args.data, options, console), options, console)


def _run_of(recipe_name: str | None, data: str) -> str:
    """Returns the second part of the name of the run that is asked for."""
    make = RECIPES.get(recipe_name or "")
    recipe = make(1) if make else None
    return qat_name(data, recipe.weights) if recipe and recipe.qat else data


def _options(flags: FolderOptions) -> FolderOptions:
    names = [field.name for field in fields(FolderOptions)]
    return FolderOptions(**{name: getattr(flags, name) for name in names})


def _notes() -> Console:
    console = cli.notes()
    console.quiet = not is_first_process()
    return console


def _without_restarts(arguments: list[str]) -> list[str]:
    return [argument for argument in arguments if argument not in ("--resume", "--fresh")]


def main() -> None:
    """Trains, then prints the network's accuracy and the checkpoint's path."""
    cli.collect_rarely()
    args = _parse()
    data = _load(args)
    options = _options(args)
    several = len(runs_of(options)) > 1
    tested = f"{len(data.test):,} to test on, " if data.test else ""
    parts = f"{len(data.train):,} images to learn from, {len(data.val):,} held out"
    if several:
        parts = f"{len(data.train) + len(data.val):,} images in {options.folds} folds"
    notes = _notes()
    for line in (
        *data.scan.lines(),
        f"{canonical_name(args.model)} on {data.name}: {parts}, {tested}{len(data.labels)} "
        f"{'labels' if data.combinations else 'classes'}, recipe {args.recipe_name}",
    ):
        notes.print(line, soft_wrap=True, markup=False)  # [a] in a name is not markup
    command = f"{cli.program('training')} {shlex.join(_without_restarts(sys.argv[1:]))}"
    common: dict[str, Any] = {
        "recipe_name": args.recipe_name,
        "machine": args.machine,
        "resume": args.resume,
        "fresh": args.fresh,
        "options": options,
        "log": args.log,
    }
    if args.recipe.qat and (several or args.find_learning_rate):
        asked = "--folds" if several else "--find-learning-rate"
        raise UserError(f"{asked}: not with quantization-aware fine-tuning; leave it out")
    if args.find_learning_rate:
        from training.rate_finder import find_rate

        rate, losses = find_rate(args.model, data, args.recipe, args.machine.accelerator)
        for each, loss in losses:
            print(f"{each:8.1e}  loss {loss:.3f}")
        print(f"the loss falls fastest at {rate:.1e}: --recipe.learning-rate {rate:.1e}")
        return
    if several:
        from training.cross_validation import cross_validate
        from training.summary.folds import in_words

        summary, spread = cross_validate(
            args.model,
            data,
            args.recipe,
            command=lambda fold: command if fold is None else f"{command} --fold {fold}",
            **common,
        )
        print(f"mean and standard deviation of {args.folds} folds: {in_words(spread)}")
        print(summary)
        return
    from training.fit import fit

    path = fit(args.model, data, args.recipe, command=command, **common)
    if is_first_process():
        _print_result(path, args.recipe)


def _print_result(path: Path, recipe: Recipe) -> None:
    """Prints the figures of a finished run, and the path of its checkpoint."""
    from training.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    metrics = checkpoint.metrics
    chosen = recipe.for_task(checkpoint.task).chosen_by
    kept = f", the best by {MONITORS[chosen].name}" if chosen else ""
    several = checkpoint.task == "multi"
    figures = _several_figures(metrics) if several else _figures(metrics)
    print(
        f"epoch {len(checkpoint.history)}/{recipe.epochs}{kept}: loss "
        f"{metrics['loss']:.3f}, {figures}"
    )
    if abstention := checkpoint.abstention:
        print(
            f"answers with a score of {abstention.threshold:.3f} or more: "
            f"{abstention.precision:.1%} are right, of {abstention.coverage:.1%} of the held-out "
            "images"
        )
    elif recipe.answer_precision and not several:
        print(f"no score below which to abstain was found: {path.parent / 'README.md'} says why")
    print(path)


def _figures(metrics: dict[str, float]) -> str:
    """Returns a text: the figures of one class of an image."""
    test = ""
    if "test_top1" in metrics:
        test = f", test top-1 {metrics['test_top1']:.1%} on {metrics['test_images']:,}"
    top5 = f"top-5 {metrics['top5']:.1%}, " if "top5" in metrics else ""
    return (
        f"held-out top-1 {metrics['top1']:.1%} on {metrics['images']:,} images, {top5}macro-F1 "
        f"{metrics['macro_f1']:.1%}, balanced accuracy {metrics['balanced_accuracy']:.1%}{test}"
    )


def _several_figures(metrics: dict[str, float]) -> str:
    """Returns a text: the figures of several labels of an image."""
    test = ""
    if "test_map" in metrics:
        test = f", test mAP {metrics['test_map']:.1%} on {metrics['test_images']:,}"
    return (
        f"held-out mAP {metrics['map']:.1%} on {metrics['images']:,} images, macro-F1 "
        f"{metrics['macro_f1']:.1%}, micro-F1 {metrics['micro_f1']:.1%}, exact "
        f"{metrics['top1']:.1%}{test}"
    )


if __name__ == "__main__":
    cli.run(main)
