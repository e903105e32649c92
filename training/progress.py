"""The progress bar of a training run."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as lightning
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from training.module import ClassifierModule

EVERY_S = 0.5  # between updates of the loss, as each waits for the device


class ProgressBar(lightning.Callback):
    """A bar for the whole run and a line per epoch, on the first process only."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._looked = self._since = 0.0

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Shows the bar; a resumed run starts at its epoch."""
        if not trainer.is_global_zero:
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[now]}"),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=self._console,
        )
        total = int(trainer.num_training_batches) * int(trainer.max_epochs or 1)
        done = int(trainer.num_training_batches) * trainer.current_epoch
        self._task = self._progress.add_task("", total=total, completed=done, now="")
        self._progress.start()

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        """Shows the number of the epoch."""
        self._since = time.perf_counter()
        if self._progress:
            epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            self._progress.update(self._task, description=epoch)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Advances the bar; updates images/s, loss and top-1 of the epoch at intervals."""
        if not self._progress:
            return
        assert isinstance(module, ClassifierModule)
        self._progress.advance(self._task)
        if (clock := time.perf_counter()) - self._looked > EVERY_S:
            self._looked = clock
            loss, top1 = module.so_far()
            images = (batch_idx + 1) * module.recipe.batch_size / module.recipe.accumulate
            rate = images / (clock - self._since)
            several = module.judge.confusion.ndim == 3
            figure = f"{'all labels right' if several else 'top-1'} {top1:.1%}"
            now = f"{rate:,.0f} images/s  loss {loss:.3f}  {figure}"
            self._progress.update(self._task, now=now)

    def on_train_epoch_end(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        """Prints the figures of the epoch."""
        if not self._progress:
            return
        assert isinstance(module, ClassifierModule)
        epoch = module.history[-1]
        figures = f"top-1 {epoch.train_top1:.1%}, held-out top-1 {epoch.val_top1:.1%}"
        if epoch.val_map is not None:
            figures = f"held-out mAP {epoch.val_map:.1%}"
        self._progress.console.print(
            f"epoch {epoch.epoch}/{trainer.max_epochs}: loss {epoch.loss:.3f}, "
            f"{figures}, macro-F1 {epoch.val_macro_f1:.1%}, "
            f"{epoch.images_per_second:,.0f} images/s",
            soft_wrap=True,  # one line in a log, too
        )

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Leaves the terminal as it was."""
        self._stop()

    def on_exception(
        self,
        trainer: lightning.Trainer,
        module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """Leaves the terminal as it was."""
        self._stop()

    def _stop(self) -> None:
        if self._progress:
            self._progress.stop()
            self._progress = None
