"""Fine-tuning: what of the published weights stays as it is, and for how long."""

from __future__ import annotations

import pytorch_lightning as lightning

from models.classifier import Classifier
from models.weight_places import probe
from models.weights import batch_norms
from training.module import ClassifierModule
from training.recipe import Recipe


class Frozen(lightning.Callback):
    """Trains only the last layer in the first epochs, and leaves batch norm statistics as they are.

    What an untrained last layer asks of the others would spoil them, and without their gradients
    an epoch takes a fraction of the time.

    Args:
        model: registry name of the network.
        recipe: its ``freeze_epochs`` and ``keep_statistics``.
    """

    def __init__(self, model: str, recipe: Recipe) -> None:
        super().__init__()
        self._head = {f"backbone.{key}" for key in probe(model)[1]}
        self._recipe = recipe

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        """Freezes the backbone, or lets it learn again."""
        assert isinstance(module, ClassifierModule)
        assert isinstance(module.network, Classifier)
        self.apply(module.network, trainer.current_epoch)

    def apply(self, network: Classifier, epoch: int) -> None:
        """Freezes what is frozen in ``epoch``, counted from 0, and only that."""
        frozen = epoch < self._recipe.freeze_epochs
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(not frozen or name in self._head)
        if self._recipe.keep_statistics:
            for layer in batch_norms(network):
                layer.eval()
