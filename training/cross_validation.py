"""k-fold cross-validation: a run for each fold, and a summary of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from core import cli
from core.errors import UserError
from core.names import canonical_name
from training.accelerators import Accelerators
from training.checkpoint import checkpoint_path, load_checkpoint, run_folder
from training.data import ImageData
from training.datasets import DATASETS
from training.fit import fit
from training.folder import find_folder
from training.folds import one_fold, runs_of
from training.identity import image_list, part_digests
from training.networks import first_network
from training.options import FolderOptions, LoggerName
from training.recipe import Recipe
from training.run import PartialRun, check_same, make_plan
from training.summary.folds import Fold, write_folds
from training.trainer import processes


def cross_validate(
    model: str,
    data: ImageData,
    recipe: Recipe,
    *,
    recipe_name: str,
    command: Callable[[int | None], str],
    machine: Accelerators,
    options: FolderOptions,
    resume: bool,
    fresh: bool,
    log: Sequence[LoggerName] = ("tensorboard",),
) -> tuple[Path, Mapping[str, tuple[float, float]]]:
    """Trains as many networks as there are folds, each on all but one, and summarises them.

    The runs are in ``runs/<model>-<data>-fold<i>of<k>/``, the summary in
    ``runs/<model>-<data>-<k>folds/``.

    Args:
        model: registry name.
        data: the data set, with any of the folds held out.
        recipe: the recipe.
        recipe_name: name of the recipe, for the records.
        command: returns the command that repeats the run of a fold, from 1, or, for None, of all.
        machine: the device to train on.
        options: how the data was read, with the number of folds.
        resume: use finished runs of the same recipe and images, and resume an unfinished one.
        fresh: train all folds again.
        log: as for :func:`training.fit.fit`.

    Returns:
        The path of the summary's README, and mean and standard deviation of each figure, by name.

    Raises:
        UserError: as :func:`training.fit.fit`; several devices, or a finished run of another
            recipe or other images.
    """
    if processes(machine) > 1:
        raise UserError(
            f"--folds {options.folds} trains on one device: --machine.devices 1, or --fold 1, "
            "--fold 2 and so on one after the other on all"
        )
    recipe = recipe.for_task(data.task)
    recipe.check()
    first_network(model, data.labels, recipe)  # says now, not in the first fold, what is missing
    model = canonical_name(model)
    folder = None if data.folder is None else find_folder(data.folder, DATASETS)
    folds = []
    for each in runs_of(options):
        part = replace(one_fold(data, folder, each), name=data.name + each.suffix)
        run = run_folder(model, part.name)
        standing = PartialRun(run).standing if resume else None
        said = f"fold {each.fold} of {each.folds}: "
        if standing == run:
            images = image_list(part, part_digests(part))
            check_same(run, make_plan(model, part, recipe_name, recipe), images)
            cli.notes().print(f"{said}finished before, in {run}", soft_wrap=True)
            path = checkpoint_path(run)
        else:
            said += f"{len(part.train):,} images to learn from, {len(part.val):,} held out"
            cli.notes().print(said, soft_wrap=True)
            path = fit(
                model,
                part,
                recipe,
                recipe_name=recipe_name,
                command=command(each.fold),
                machine=machine,
                resume=standing is not None,
                fresh=fresh,
                options=each,
                log=log,
            )
        checkpoint = load_checkpoint(path)
        folds.append(
            Fold(
                run=run.name,
                train_images=len(part.train),
                epoch=len(checkpoint.history),
                metrics=checkpoint.metrics,
            )
        )
    name = run_folder(model, f"{data.name}-{options.folds}folds")
    return write_folds(
        name, folds, title=f"{model} on {data.name}", recipe_name=recipe_name, command=command(None)
    )
