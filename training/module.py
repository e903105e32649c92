"""The network, its loss and its optimiser, as Lightning wants them."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytorch_lightning as lightning
import torch
from torch import nn
from torchmetrics.classification import MulticlassAccuracy

from models.classifier import Classifier
from models.preprocess import ImageError
from models.registry import build_model, canonical_name
from training.checkpoint import KEY, SCHEMA
from training.data import ImageData
from training.loader import Batch
from training.recipe import Recipe


class ClassifierModule(lightning.LightningModule):
    """Trains registry network ``model`` on ``data`` by ``recipe``."""

    def __init__(self, model: str, data: ImageData, recipe: Recipe) -> None:
        super().__init__()
        self.model = canonical_name(model)
        self.data = data
        self.recipe = recipe
        classes = len(data.labels)
        self.network = Classifier(build_model(model, num_classes=classes))
        self.network.to(memory_format=torch.channels_last)
        if recipe.bn_momentum is not None:
            for layer in self.network.modules():
                if isinstance(layer, nn.BatchNorm2d):
                    layer.momentum = recipe.bn_momentum
        self.loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.train_top1 = MulticlassAccuracy(classes, average="micro")
        self.val_top1 = MulticlassAccuracy(classes, average="micro")

    def on_before_batch_transfer(self, batch: Batch | ImageError, dataloader_idx: int) -> Batch:
        """Returns the batch, or raises the ImageError that stands in its place."""
        if isinstance(batch, ImageError):
            raise batch
        return batch

    def training_step(self, batch: Batch, index: int) -> torch.Tensor:
        """Returns the loss of one batch."""
        pixels, labels = batch
        logits = self.network(pixels)
        loss: torch.Tensor = self.loss(logits, labels)
        self.train_top1(logits, labels)
        self.log("loss", loss, prog_bar=True)
        self.log("train_top1", self.train_top1, prog_bar=True, on_step=False, on_epoch=True)
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        """Adds one held-out batch to the epoch's top-1 and loss."""
        pixels, labels = batch
        logits = self.network(pixels)
        self.val_top1(logits, labels)
        self.log("val_loss", self.loss(logits, labels), batch_size=len(labels))
        self.log("val_top1", self.val_top1, prog_bar=True)

    def configure_optimizers(self) -> Any:
        """Returns AdamW under warm-up and cosine decay, stepped every batch."""
        recipe = self.recipe
        optimizer = torch.optim.AdamW(
            self.network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_cosine(step, steps, recipe.warmup)
        )
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what export needs, in types that ``weights_only`` loading accepts."""
        figures = self.trainer.callback_metrics
        checkpoint[KEY] = {
            "schema": SCHEMA,
            "model": self.model,
            "data": self.data.name,
            "labels": list(self.data.labels),
            "preprocess": dataclasses.asdict(self.recipe.preprocess),
            "recipe": dataclasses.asdict(self.recipe),
            "metrics": {
                "loss": float(figures["loss"]),
                "top1": float(figures["val_top1"]),
                "images": len(self.data.val),
            },
        }


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Returns the factor in (0, 1] on the learning rate of ``step``, counted from 0.

    It rises linearly over the first ``warmup`` share of ``steps`` and falls as half a cosine
    after that (Bag of Tricks, section 5.1).
    """
    rising = int(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
