"""Says, after the first steps, how long a run will take and how much memory it needs."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from typing import Any

import pytorch_lightning as lightning
import torch
from rich.console import Console

from core.cgroups import memory_limit
from core.machine import main_memory
from report.format import duration, gibibytes, plural
from training.loader import STATISTICS_IMAGES
from training.module import ClassifierModule, peak_bytes
from training.recipe import Recipe

WARM_UP = 2  # steps that are not timed, as they allocate memory and choose kernels
TIMED_S = 3.0  # seconds of steps to time; less if the epoch is shorter
FORWARD = 1 / 3  # share of a step that is its forward pass, as the backward pass costs twice that


class Estimate(lightning.Callback):
    """Prints a line after the first timed steps, on the first process only.

    Args:
        console: where it is printed.
        held_out: number of held-out images.
    """

    def __init__(self, console: Console, held_out: int) -> None:
        super().__init__()
        self._console = console
        self._held_out = held_out
        self._since = 0.0
        self._said = False

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Starts to time steps, should all of the epoch be warm-up."""
        self._said = not trainer.is_global_zero
        self._since = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Times the steps, and prints the line when there are enough of them."""
        if self._said:
            return
        assert isinstance(module, ClassifierModule)
        if module.device.type == "cuda":
            torch.cuda.synchronize(module.device)
        batches = int(trainer.num_training_batches)
        done, warm = batch_idx + 1, min(WARM_UP, batches - 1)
        if done == warm:
            self._since = time.perf_counter()
        seconds = time.perf_counter() - self._since
        if done <= warm or (seconds < TIMED_S and done < batches):
            return
        self._said = True
        per_batch = seconds / (done - warm)
        left = seconds_left(
            module.recipe,
            epoch=trainer.current_epoch,
            batches=batches,
            done=done,
            per_batch=per_batch,
            held_out=self._held_out / trainer.world_size,
            world=trainer.world_size,
        )
        epochs = plural(module.recipe.epochs - trainer.current_epoch, "epoch")
        end = datetime.now() + timedelta(seconds=left)
        until = f"{end:%H:%M}" if left < 86_400 else f"{end:%Y-%m-%d %H:%M}"
        self._console.print(
            f"after {plural(done, 'step')}: about {duration(left)} for {epochs}, until {until}; "
            f"{_memory(module.device)}",
            soft_wrap=True,
        )


def seconds_left(
    recipe: Recipe,
    *,
    epoch: int,
    batches: int,
    done: int,
    per_batch: float,
    held_out: float,
    world: int = 1,
) -> float:
    """Returns about how many seconds a run will still take.

    The time of an image grows with its area, which progressive learning changes. Validation,
    batch norm statistics and a frozen backbone take the third of a step that is a forward pass.

    Args:
        recipe: the recipe.
        epoch: epoch, from 0, that was timed.
        batches: number of batches per epoch and process.
        done: number of those of the timed epoch that are done.
        per_batch: seconds per batch in the timed epoch.
        held_out: number of held-out images per process.
        world: number of processes.
    """
    images = recipe.batch_size / recipe.accumulate / world  # per batch
    trained = batches * images
    plain = held_out + min(STATISTICS_IMAGES / world, trained)
    unit = per_batch / images / _cost(recipe, epoch)
    total = -done * per_batch
    for each in range(epoch, recipe.epochs):
        total += unit * (trained * _cost(recipe, each) + plain * FORWARD * recipe.crop**2)
    return total


def _cost(recipe: Recipe, epoch: int) -> float:
    """Returns what a training image costs in ``epoch``, in pixels passed forward and backward."""
    side = recipe.at(epoch).train_crop or recipe.crop
    return side**2 * (FORWARD if epoch < recipe.freeze_epochs else 1.0)


def _memory(device: torch.device) -> str:
    """Returns a text: the peak so far of the memory that training needs, and what there is."""
    peak = gibibytes(peak_bytes(device))
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        return f"GPU memory {peak} at its peak so far, of {gibibytes(total)}"
    sizes = [size for size in (main_memory(), memory_limit()) if size is not None]
    of = f", of {gibibytes(min(sizes))}" if sizes else ""
    return f"memory {peak} at its peak so far{of}"
