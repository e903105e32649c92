"""The LightningModule: network, loss, optimiser, and the figures of each epoch."""

from __future__ import annotations

import dataclasses
import math
import resource
import time
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as lightning
import torch
from pytorch_lightning.loggers import TensorBoardLogger
from torch import nn
from torchmetrics import MeanMetric

from core.errors import UserError
from training.augment import mixed, seed_of
from training.checkpoint import KEY, SCHEMA
from training.data import Combinations, ImageData
from training.judging import make_judge, taken
from training.loader import Batch, Report, read
from training.losses import make_loss, make_multi_loss
from training.networks import DistillationLoss, load_teacher
from training.optimizer import make_optimizer, rate_factor
from training.qat.loss import OwnAnswers
from training.recipe import Recipe
from training.records import MONITORS, Epoch

LOG_EVERY = 20  # steps
_LOGGED_CLASSES = 20  # most classes for which TensorBoard's log has the top-1 of each


class LossNotFinite(UserError):
    """A loss that is not finite."""


class ClassifierModule(lightning.LightningModule):
    """Trains a network to classify images into ``labels`` by ``recipe``.

    Args:
        network: uint8 (N, H, W, 3) -> logits (N, C).
        own: of an int8 form, the frozen float32 network whose answers it learns; None otherwise.
        facts: added to the checkpoint: the names ``model`` and ``data``, and a record of the data.
        labels: class names.
        recipe: the recipe.
        images: number of training images of each class; needed for weights of classes.
        combinations: if an image may have several labels, those that occur together, and
        total: number of training images.
        report: called with the exception of each image that cannot be read; None raises it.
    """

    def __init__(
        self,
        network: nn.Module,
        facts: dict[str, Any],
        labels: tuple[str, ...],
        recipe: Recipe,
        *,
        images: Sequence[int] = (),
        combinations: Combinations = (),
        total: int = 0,
        report: Report | None = None,
        own: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.labels = labels
        self.recipe = recipe
        self.history: list[Epoch] = []
        self.weights_top1: float | None = None  # held-out top-1 of the unaveraged weights
        self._facts = facts
        self._report = report
        self.judge = make_judge(labels, combinations)
        self._loss = (
            make_multi_loss(recipe, images, total) if combinations else make_loss(recipe, images)
        )
        self._distillation: nn.Module | None = None
        if own is not None:
            self._distillation = OwnAnswers(own, recipe.temperature)
        elif recipe.teacher:
            teacher = load_teacher(recipe.teacher, labels, sorted(recipe.train_crops))
            self._distillation = DistillationLoss(teacher, recipe.temperature, self._loss)
        self._train_loss, self._train_top1, self._val_loss = (
            MeanMetric(nan_strategy="disable") for _ in range(3)
        )
        self._held_out: dict[str, float] = {}  # figures of the last validation, as in Epoch
        self._started = self._trained = 0.0

    def on_train_epoch_start(self) -> None:
        """Seeds the epoch from the recipe and sets its dropout."""
        torch.manual_seed(seed_of((self.recipe.seed, self.current_epoch, self.global_rank)))
        dropout = self.recipe.at(self.current_epoch).dropout
        if dropout is not None:
            for layer in self.network.modules():
                if isinstance(layer, nn.Dropout):
                    layer.p = dropout
        self._started = time.perf_counter()

    def on_before_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        """Returns the batch; reports images that cannot be read, or raises their exception."""
        if not len(read(batch, self._report).labels):
            raise UserError(f"no image of a whole batch can be read, such as {batch.unreadable[0]}")
        return batch

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        """Returns the loss of one batch."""
        recipe = self.recipe.at(self.current_epoch)
        targets = self.judge.targets(batch.labels)
        pixels, targets = mixed(batch.pixels, targets, recipe, len(self.labels))
        logits = self.network(pixels)
        if self._distillation is None:
            loss: torch.Tensor = self._loss(logits, targets)
        else:
            loss = self._distillation(logits, targets, pixels)
        detached, right = loss.detach(), self.judge.right(logits.detach(), batch.labels)
        self._train_loss.update(detached, len(right))
        self._train_top1.update(right.float())
        if self.loggers and self.global_step % LOG_EVERY == 0:
            self._log({"loss": detached.item()})
        return loss

    def on_validation_start(self) -> None:
        """Stops the timer of the epoch's training."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._trained = time.perf_counter()

    def validation_step(self, batch: Batch, index: int) -> None:
        """Adds one held-out batch to the epoch's figures."""
        logits = self.network(batch.pixels)
        loss = self._loss(logits, self.judge.targets(batch.labels))
        self._val_loss.update(loss, len(batch.labels))
        self.judge.update(logits, batch.labels)

    def on_validation_epoch_end(self) -> None:
        """Computes the held-out figures; gives callbacks the one that chooses the best epoch."""
        self._held_out = {"val_loss": taken(self._val_loss), **self.judge.figures()}
        chosen = MONITORS[self.recipe.chosen_by or "top1"].field
        # Loggers get it with the others of the epoch, in one row.
        self.log(chosen, self._held_out[chosen], sync_dist=True, logger=False)
        boards = [each for each in self.loggers if isinstance(each, TensorBoardLogger)]
        if boards and len(self.labels) <= _LOGGED_CLASSES:
            name = "class_map" if "val_map" in self._held_out else "class_top1"
            tops = {
                f"{name}/{label.encode(errors='replace').decode()}": figure
                for label, figure in self.judge.class_figures.items()
            }
            boards[0].log_metrics(tops, self.global_step)  # others refuse some names of classes

    def on_validation_end(self) -> None:
        """Adds the epoch to the history, before callbacks at the end of the epoch use it.

        Raises:
            LossNotFinite: the loss is not finite.
        """
        order: Any = self.trainer.train_dataloader
        images = len(order.sampler) * self.trainer.world_size
        epoch = Epoch(
            epoch=self.current_epoch + 1,
            loss=taken(self._train_loss),
            train_top1=taken(self._train_top1),
            learning_rate=self.trainer.optimizers[0].param_groups[0]["lr"],
            images_per_second=images / (self._trained - self._started),
            train_seconds=self._trained - self._started,
            val_seconds=time.perf_counter() - self._trained,
            **self._held_out,
        )
        if not math.isfinite(epoch.loss):
            raise LossNotFinite(
                f"the loss of epoch {epoch.epoch} is {epoch.loss}: learning_rate "
                f"{self.recipe.learning_rate:g} is too high for this network and batch, or set clip"
            )
        self.history.append(epoch)
        if self.loggers:
            figures = {k: v for k, v in dataclasses.asdict(epoch).items() if v is not None}
            self._log({f"epoch/{k}": v for k, v in figures.items()})

    def _log(self, figures: dict[str, float]) -> None:
        for logger in self.loggers:
            logger.log_metrics(figures, self.global_step)

    def so_far(self) -> tuple[float, float]:
        """Returns mean loss and top-1 of the epoch so far in this process."""
        loss, top1 = self._train_loss, self._train_top1
        return float(loss.mean_value / loss.weight), float(top1.mean_value / top1.weight)

    def configure_optimizers(self) -> Any:
        """Returns the recipe's optimiser and schedule, stepped every batch."""
        # A fused step unscales fp16 gradients itself, which is too late for clipping.
        unscaled = self.trainer.precision == "16-mixed" and self.recipe.clip is not None
        optimizer = make_optimizer(self.network, self.recipe, fused=not unscaled)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: rate_factor(self.recipe, step, steps)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds data for export and resuming, in types that ``weights_only`` loading allows."""
        last, confusion = self.history[-1], self.judge.confusion
        figures = {
            "macro_f1": last.val_macro_f1,
            "balanced_accuracy": last.val_balanced_accuracy,
            "top5": last.val_top5,
            "map": last.val_map,
            "micro_map": last.val_micro_map,
        }
        checkpoint[KEY] = {
            **self._facts,
            "schema": SCHEMA,
            "labels": list(self.labels),
            "preprocess": dataclasses.asdict(self.recipe.preprocess),
            "recipe": dataclasses.asdict(self.recipe),
            "metrics": {
                "loss": last.loss,
                "top1": last.val_top1,
                # Of several labels, each has all images.
                "images": int((confusion if confusion.ndim == 2 else confusion[0]).sum()),
                "peak_bytes": peak_bytes(self.device),
                **{name: value for name, value in figures.items() if value is not None},
            },
            "history": [dataclasses.asdict(epoch) for epoch in self.history],
            "confusion": confusion,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the history of the run that is resumed."""
        self.history = [Epoch(**epoch) for epoch in checkpoint[KEY]["history"]]
        self.judge.confusion = checkpoint[KEY]["confusion"]


def facts_of_classes(data: ImageData) -> dict[str, Any]:
    """Returns the arguments of a module that say which labels the training images have."""
    return {
        "images": data.targets(data.train).sum(axis=0).tolist(),
        "combinations": data.combinations,
        "total": len(data.train),
    }


def peak_bytes(device: torch.device) -> int:
    """Returns the peak memory in bytes: of tensors on a GPU, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
