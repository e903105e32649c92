"""Averaged weights (EMA), and batch norm statistics estimated for them (PreciseBN).

Running statistics lag behind the weights, and are never computed for averaged weights. So they are
estimated again on training images: PreciseBN, arXiv 2105.07576, Section 3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import WeightAveraging

from models.weights import batch_norms, settle_batch_norm
from training.loader import Batch, Loaders
from training.module import ClassifierModule


class Averaging(WeightAveraging):
    """The exponential moving average of the weights, with a warm-up.

    Without warm-up, the initial weights dominate a short run: with a decay of 0.9999 they still
    make up 98 % of the average after 200 steps.

    Args:
        decay: decay of the average after warm-up; see :func:`warm_decay`.
    """

    def __init__(self, decay: float) -> None:
        def averaged(
            average: torch.Tensor, weights: torch.Tensor, steps: torch.Tensor
        ) -> torch.Tensor:
            return weights.lerp(average, warm_decay(steps, decay))

        # Batch norm statistics are not averaged but estimated for the averaged weights.
        super().__init__(use_buffers=False, avg_fn=averaged)

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Validates the weights themselves once, to detect whether their average lags behind."""
        assert isinstance(module, ClassifierModule)
        estimate_statistics(trainer, module)
        module.weights_top1 = held_out_top1(trainer, module)
        super().on_train_end(trainer, module)


def warm_decay(steps: torch.Tensor, decay: float) -> torch.Tensor:
    """Returns the decay of the next step, after ``steps`` steps; at first below ``decay``.

    It is min(decay, (1 + steps) / (10 + steps)), so a short run averages about the last tenth of
    its steps. Source: tf.train.ExponentialMovingAverage with num_updates, as used by the authors
    of EfficientNet (arXiv 1905.11946).
    """
    return ((1 + steps) / (10 + steps)).clamp(max=decay)


SETTLED = 10
"""Running statistics count as converged after this many times 1 / momentum steps: the initial ones
then have a weight of exp(-10)."""


class PreciseBN(lightning.Callback):
    """Estimates batch norm statistics before each validation, where needed.

    The validated weights and statistics are saved. Training continues from these statistics, but
    does not use them.

    Args:
        always: whether to do it before every validation, as averaged weights need; otherwise only
            until the running statistics have converged.
    """

    def __init__(self, *, always: bool) -> None:
        super().__init__()
        self._always = always

    def on_validation_epoch_start(
        self, trainer: lightning.Trainer, module: lightning.LightningModule
    ) -> None:
        """Estimates them, after the callback that swaps in the averaged weights."""
        assert isinstance(module, ClassifierModule)
        if self._always or not statistics_settled(module, trainer.global_step):
            estimate_statistics(trainer, module)
        else:
            share_statistics(trainer, module)


def statistics_settled(module: ClassifierModule, steps: int) -> bool:
    """Returns whether the running statistics have converged after ``steps`` steps."""
    momenta = [layer.momentum or 0.0 for layer in batch_norms(module.network)]
    return steps * min(momenta, default=1.0) >= SETTLED


def estimate_statistics(trainer: lightning.Trainer, module: ClassifierModule) -> None:
    """Estimates the statistics on training images, each process on its share of them.

    A recipe can keep those of published weights.
    """
    if module.recipe.keep_statistics or not batch_norms(module.network):
        return
    loaders = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(loaders, Loaders)
    with trainer.precision_plugin.forward_context():
        batches = _on_device(trainer, module, loaders.statistics_dataloader())
        settle_batch_norm(module.network, (batch.pixels for batch in batches))
    share_statistics(trainer, module)


def share_statistics(trainer: lightning.Trainer, module: ClassifierModule) -> None:
    """Averages the statistics over all processes, as all validate the network that is saved."""
    for layer in batch_norms(module.network):
        for statistic in (layer.running_mean, layer.running_var):
            assert statistic is not None
            statistic.copy_(trainer.strategy.reduce(statistic, reduce_op="mean"))


@torch.no_grad()
def held_out_top1(trainer: lightning.Trainer, module: ClassifierModule) -> float:
    """Returns the held-out top-1 of the network's current weights, over all processes."""
    module.network.eval()
    counts = torch.zeros(2, device=module.device)  # correct, total
    held_out = trainer.val_dataloaders
    assert held_out is not None
    with trainer.precision_plugin.forward_context():
        for batch in _on_device(trainer, module, held_out):
            right = module.judge.right(module.network(batch.pixels), batch.labels)
            counts += torch.stack([right.sum(), torch.tensor(len(right), device=module.device)])
    right, images = trainer.strategy.reduce(counts, reduce_op="sum").tolist()
    return float(right / images)


def _on_device(
    trainer: lightning.Trainer, module: ClassifierModule, batches: Iterable[Batch]
) -> Iterator[Batch]:
    """Yields batches moved to the device, as for a training step."""
    for batch in batches:
        yield trainer.strategy.batch_to_device(module.on_before_batch_transfer(batch, 0))
