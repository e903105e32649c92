"""The network, its loss and its optimiser, as Lightning wants them."""

from __future__ import annotations

import dataclasses
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
        """Returns AdamW under a one-cycle schedule, stepped every batch."""
        recipe = self.recipe
        optimizer = torch.optim.AdamW(
            self.network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            recipe.learning_rate,
            total_steps=int(self.trainer.estimated_stepping_batches),
            pct_start=recipe.warmup,
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
