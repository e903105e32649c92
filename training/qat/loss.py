"""The loss of quantization-aware fine-tuning: how far answers are from those in float32."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional


class OwnAnswers(nn.Module):
    """T^2 times the Kullback-Leibler divergence of a network's softened scores from its own.

    It is zero where the int8 form answers as float32 does, so it changes no answer to suit a
    label, and calibrated scores stay so. The float32 network is not a submodule, so that its
    weights are neither saved nor trained.

    Args:
        own: the network in float32, frozen.
        temperature: T, of both softmaxes.
    """

    def __init__(self, own: nn.Module, temperature: float) -> None:
        super().__init__()
        self._own = [own]
        self._temperature = temperature

    def forward(
        self, logits: torch.Tensor, targets: torch.Tensor, pixels: torch.Tensor
    ) -> torch.Tensor:
        """Returns the mean loss of a batch, given logits (N, C) and pixels; no target counts."""
        with torch.no_grad():
            own = self._own[0].to(pixels.device)(pixels)
        return self._temperature**2 * functional.kl_div(
            (logits / self._temperature).log_softmax(dim=1),
            (own / self._temperature).log_softmax(dim=1),
            reduction="batchmean",
            log_target=True,
        )
