"""The running average of the weights, which is validated and kept in their place."""

from __future__ import annotations

import pytorch_lightning as lightning
import torch
from pytorch_lightning.callbacks import WeightAveraging

from training.module import ClassifierModule
from training.settling import held_out_top1, settle


class Averaging(WeightAveraging):
    """The exponential moving average of the weights, with a warm-up.

    Without one, a short run keeps the weights it started from: at a decay of 0.9999 they still
    make up 98 % of the average after 200 steps.

    Args:
        decay: share of the average that a step leaves, once warm; see :func:`warm_decay`.
    """

    def __init__(self, decay: float) -> None:
        def averaged(
            average: torch.Tensor, weights: torch.Tensor, steps: torch.Tensor
        ) -> torch.Tensor:
            return weights.lerp(average, warm_decay(steps, decay))

        # The statistics of batch norm are not averaged: they are estimated for the average.
        super().__init__(use_buffers=False, avg_fn=averaged)

    def on_train_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        """Validates the weights themselves, once, to tell whether their average lags them."""
        assert isinstance(module, ClassifierModule)
        settle(trainer, module)
        module.weights_top1 = held_out_top1(trainer, module)
        super().on_train_end(trainer, module)


def warm_decay(steps: torch.Tensor, decay: float) -> torch.Tensor:
    """Returns the decay of a step, ``steps`` of them being averaged already.

    That is min(decay, (1 + steps) / (10 + steps)), so that the average is of the last tenth of the
    steps until there are enough of them. Source: tf.train.ExponentialMovingAverage with
    num_updates, as the authors of EfficientNet (arXiv 1905.11946) train.
    """
    return ((1 + steps) / (10 + steps)).clamp(max=decay)
