"""Fine-tuning: what of the published weights stays as it is, and for how long."""

from __future__ import annotations

import pytorch_lightning as lightning
from torch import nn

from core import cli
from models.classifier import Classifier
from models.weight_places import probe
from models.weights import batch_norms
from training.module import ClassifierModule
from training.recipe import Recipe
from training.stages import find_stages


class Frozen(lightning.Callback):
    """Trains only the last layer in the first epochs, and leaves batch norm statistics as they are.

    What an untrained last layer asks of the others would spoil them, and without their gradients
    an epoch takes a fraction of the time. With ``unfreeze_every`` the stages then begin to learn
    one after the other, the last one first (gradual unfreezing, ULMFiT, arXiv 1801.06146).

    Args:
        model: registry name of the network.
        recipe: its ``freeze_epochs``, ``unfreeze_every`` and ``keep_statistics``.
    """

    def __init__(self, model: str, recipe: Recipe) -> None:
        super().__init__()
        self._head = {f"backbone.{key}" for key in probe(model)[1]}
        self._recipe = recipe
        self._stages: list[list[nn.Parameter]] = []
        self._said = ""

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        """Freezes the backbone, or lets it learn again, as a whole or one stage more."""
        assert isinstance(module, ClassifierModule)
        assert isinstance(module.network, Classifier)
        self.apply(module.network, trainer.current_epoch)
        if self._stages and trainer.is_global_zero:
            count = min(len(self._stages), self._learning(trainer.current_epoch))
            said = f"the last {count} of {len(self._stages)} stages learn"
            if said != self._said:
                cli.notes().print(f"epoch {trainer.current_epoch + 1}: {said}", soft_wrap=True)
            self._said = said

    def apply(self, network: Classifier, epoch: int) -> None:
        """Freezes what is frozen in ``epoch``, counted from 0, and only that."""
        learning = {each for name, each in network.named_parameters() if name in self._head}
        if epoch >= self._recipe.freeze_epochs:
            if self._recipe.unfreeze_every:
                self._stages = self._stages or find_stages(network, self._recipe.crop)
                for stage in self._stages[-self._learning(epoch) :]:
                    learning.update(stage)
            else:
                learning.update(network.parameters())
        for parameter in network.parameters():
            parameter.requires_grad_(parameter in learning)
        if self._recipe.keep_statistics:
            for layer in batch_norms(network):
                layer.eval()

    def _learning(self, epoch: int) -> int:
        """Returns how many stages learn in ``epoch``, with that of what follows pooling."""
        recipe = self._recipe
        return 2 + (epoch - recipe.freeze_epochs) // recipe.unfreeze_every
