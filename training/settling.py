"""The statistics of batch norm, estimated anew before the held-out images are seen.

The running ones lag: after few steps they are those of weights that are gone, and of a network at
its start, and no step ever computed those of averaged weights. Source: PreciseBN, arXiv 2105.07576,
Section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytorch_lightning as lightning
import torch

from models.weights import batch_norms, settle_batch_norm
from training.loader import Batch, Loaders
from training.module import ClassifierModule

SETTLED = 10
"""Running statistics are trusted after so many times the steps that they remember, which are
1 / momentum: the first ones then have a weight of exp(-10)."""


class Settling(lightning.Callback):
    """Estimates the statistics of batch norm before each validation, where that is needed.

    The weights that are validated are those that are saved, so the statistics are, too. Training
    goes on from them, and does not compute with them.

    Args:
        always: as for averaged weights; else while the running statistics are not settled.
    """

    def __init__(self, *, always: bool) -> None:
        super().__init__()
        self._always = always

    def on_validation_epoch_start(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        """Estimates them; comes after the callback that puts the average in place."""
        assert isinstance(module, ClassifierModule)
        if self._always or not settled(module, trainer.global_step):
            settle(trainer, module)
        else:
            share(trainer, module)


def settled(module: ClassifierModule, steps: int) -> bool:
    """Returns whether the running statistics can be trusted after ``steps`` steps."""
    momenta = [layer.momentum or 0.0 for layer in batch_norms(module.network)]
    return steps * min(momenta, default=1.0) >= SETTLED


def settle(trainer: lightning.Trainer, module: ClassifierModule) -> None:
    """Estimates the statistics on some training images, in every process on its share of them."""
    if not batch_norms(module.network):
        return
    loaders = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(loaders, Loaders)
    with trainer.precision_plugin.forward_context():
        batches = _on_device(trainer, module, loaders.settling_dataloader())
        settle_batch_norm(module.network, (batch.pixels for batch in batches))
    share(trainer, module)


def share(trainer: lightning.Trainer, module: ClassifierModule) -> None:
    """Gives all processes the mean of their statistics: they validate the network that is saved."""
    for layer in batch_norms(module.network):
        for statistic in (layer.running_mean, layer.running_var):
            assert statistic is not None
            statistic.copy_(trainer.strategy.reduce(statistic, reduce_op="mean"))


@torch.no_grad()
def held_out_top1(trainer: lightning.Trainer, module: ClassifierModule) -> float:
    """Returns the held-out top-1 of the network as it is, of all processes; nothing is logged."""
    module.network.eval()
    counts = torch.zeros(2, device=module.device)  # right, and all
    held_out = trainer.val_dataloaders
    assert held_out is not None
    with trainer.precision_plugin.forward_context():
        for batch in _on_device(trainer, module, held_out):
            right = module.network(batch.pixels).argmax(dim=1) == batch.labels
            counts += torch.stack([right.sum(), torch.tensor(len(right), device=module.device)])
    right, images = trainer.strategy.reduce(counts, reduce_op="sum").tolist()
    return float(right / images)


def _on_device(
    trainer: lightning.Trainer, module: ClassifierModule, batches: Iterable[Batch]
) -> Iterator[Batch]:
    """Yields batches as a step gets them."""
    for batch in batches:
        yield trainer.strategy.batch_to_device(module.on_before_batch_transfer(batch, 0))
