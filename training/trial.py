"""A short training run without files, of which only the figures are kept: a trial of a search."""

from __future__ import annotations

from collections.abc import Callable

import pytorch_lightning as lightning
import torch

from core.names import canonical_name
from models.input_size import check_input_size
from training.accelerators import Accelerators
from training.data import ImageData
from training.loader import Loaders, check_batch, part_size
from training.module import ClassifierModule, facts_of_classes
from training.networks import first_network
from training.recipe import Recipe
from training.records import MONITORS, Epoch
from training.trainer import learning_callbacks, processes, quiet, trainer_options


def check_trial(
    model: str,
    data: ImageData,
    recipe: Recipe,
    *,
    flag: str = "--recipe.batch-size",
    machine: Accelerators | None = None,
) -> None:
    """Raises UserError if a batch of ``recipe`` cannot be made of ``data``, or taken by ``model``.

    Args:
        model: registry name.
        data: the data set.
        recipe: the recipe.
        flag: what sets the batch on the command line, for the error.
        machine: devices to train on, each with its part of a batch.
    """
    world = processes(machine or Accelerators())
    check_batch(data, recipe, flag=flag, world=world)
    check_input_size(
        model,
        *sorted({recipe.crop, *recipe.train_crops}),
        classes=len(data.labels),
        batch=part_size(recipe, world),
    )


def run_trial(
    model: str,
    data: ImageData,
    recipe: Recipe,
    go_on: Callable[[Epoch], bool],
    *,
    machine: Accelerators | None = None,
) -> Epoch:
    """Trains a network and returns the epoch that a run of ``recipe`` would keep.

    Args:
        model: registry name.
        data: the data set; its test images are not used.
        recipe: the recipe; ``patience`` and ``calibrate`` have no effect.
        go_on: called with each epoch; False ends the trial, whose figures are then of fewer epochs.
        machine: devices to train on.

    Raises:
        UserError: as :func:`training.fit.fit`.
        LossNotFinite: the loss is not finite.
    """
    recipe.check()
    recipe = recipe.for_task(data.task)
    model = canonical_name(model)
    check_trial(model, data, recipe, machine=machine)
    torch.manual_seed(recipe.seed)
    network, _ = first_network(model, data.labels, recipe)
    module = ClassifierModule(network, {}, data.labels, recipe, **facts_of_classes(data))
    with quiet():
        trainer = lightning.Trainer(
            logger=False,
            enable_checkpointing=False,
            callbacks=[*learning_callbacks(model, recipe), _Ask(go_on)],
            **trainer_options(recipe, machine or Accelerators()),
        )
        try:
            trainer.fit(module, datamodule=Loaders(data, recipe))
        except SystemExit as error:  # what Lightning makes of an interruption
            if not isinstance(error.__context__, KeyboardInterrupt):
                raise
            raise type(error.__context__) from None
    chosen = recipe.chosen_by
    if chosen is None:
        return module.history[-1]
    return max(module.history, key=MONITORS[chosen].better)


class _Ask(lightning.Callback):
    """Ends the training where the function says so."""

    def __init__(self, go_on: Callable[[Epoch], bool]) -> None:
        super().__init__()
        self._go_on = go_on

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        """Asks, with the figures of the epoch, which validation has completed."""
        assert isinstance(module, ClassifierModule)
        if not self._go_on(module.history[-1]):
            trainer.should_stop = True
