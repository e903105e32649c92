"""Finds a learning rate by the loss while the rate rises (range test, arXiv 1506.01186)."""

from __future__ import annotations

import tempfile
import warnings
from typing import Any, Literal

import numpy as np
import pytorch_lightning as lightning
import torch
from pytorch_lightning.tuner.tuning import Tuner

from core.errors import UserError
from core.names import canonical_name
from training.accelerators import Accelerators
from training.data import ImageData
from training.finetuning import Frozen
from training.loader import Loaders
from training.module import ClassifierModule, facts_of_classes
from training.networks import first_network
from training.recipe import Recipe
from training.trainer import quiet, trainer_options

LOWEST, HIGHEST, STEPS = 1e-6, 1.0, 100
_SMOOTHING = 0.98  # decay of the average loss in Lightning's finder
_FIRST = 10  # steps whose average says what the loss is at first
_LEAST = 0.01  # by which fraction it must fall
_LINES = 12  # about so many rates are shown


def find_rate(
    model: str,
    data: ImageData,
    recipe: Recipe,
    accelerator: Literal["auto", "cpu", "gpu"] = "auto",
) -> tuple[float, list[tuple[float, float]]]:
    """Returns the rate by whose logarithm the loss falls fastest, and some rates with losses.

    The rate rises from step to step by the same factor, until the loss is four times the best.
    Losses are smoothed by Lightning's finder. The network that learns meanwhile is not kept.

    Args:
        model: registry name.
        data: the data set.
        recipe: the recipe; its learning rate, schedule and layer_decay are not used.
        accelerator: device to train on, one of its kind.

    Raises:
        UserError: as :func:`training.fit.fit`, or the loss falls at no rate.
    """
    recipe.check()
    recipe = recipe.for_task(data.task)
    torch.manual_seed(recipe.seed)
    network, _ = first_network(model, data.labels, recipe)
    module = _Trial(network, {}, data.labels, recipe, **facts_of_classes(data))
    Frozen(canonical_name(model), recipe).apply(network, 0)
    options = trainer_options(recipe, Accelerators(accelerator=accelerator, devices=1))
    options["max_epochs"] = STEPS  # of at least a step each
    with quiet(), tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*have no `val_dataloader`.*")  # on purpose
        trainer = lightning.Trainer(
            default_root_dir=folder, logger=False, enable_checkpointing=False, **options
        )
        finder = Tuner(trainer).lr_find(
            module,
            train_dataloaders=Loaders(data, recipe).train_dataloader(),
            min_lr=LOWEST,
            max_lr=HIGHEST,
            num_training=STEPS,
            update_attr=False,
        )
    assert finder is not None
    # The finder divides its moving average by the weight that it has one step later, and suggests
    # the steepest fall by the rate itself, which is at rates far too low.
    losses = [
        loss * (1 - _SMOOTHING ** (step + 1)) / (1 - _SMOOTHING**step)
        for step, loss in enumerate(finder.results["loss"], start=1)
    ][_FIRST - 1 :]
    rates = finder.results["lr"][_FIRST - 1 :]
    if len(losses) < 3 or min(losses) > (1 - _LEAST) * losses[0]:
        raise UserError(
            f"no learning rate from {LOWEST:g} to {HIGHEST:g} makes the loss fall: check images "
            "and labels, or the recipe"
        )
    steepest = int(np.argmin(np.gradient(losses, np.log(rates))))
    pairs = list(zip(rates, losses, strict=True))
    return rates[steepest], pairs[:: max(1, len(pairs) // _LINES)]


class _Trial(ClassifierModule):
    """A module of which only the weights are saved and restored, as it has no whole epoch."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds nothing."""

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores nothing."""
