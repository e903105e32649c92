"""ImageNet weights as their publisher gives them, and random ones that are fit for timing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from models.errors import UserError
from models.preprocess import Preprocess
from models.registry import canonical_name, find_model


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageNetWeights:
    """Published weights with all they were published with.

    Attributes:
        state_dict: of the backbone.
        labels: the 1,000 class names, in the order of the logits.
        preprocess: the publisher's resize and crop.
        mean: per channel, of pixels in [0, 1].
        std: likewise.
        origin: publisher and name of the weights.
    """

    state_dict: dict[str, torch.Tensor]
    labels: tuple[str, ...]
    preprocess: Preprocess
    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str


def load_imagenet_weights(name: str) -> ImageNetWeights:
    """Returns the published ImageNet weights of network ``name``.

    Raises:
        UserError: unknown network, no published weights, or they can be neither found nor fetched.
    """
    get = find_model(name).imagenet
    if get is None:
        name = canonical_name(name)
        raise UserError(
            f"{name}: no run is given and nobody published ImageNet weights for it; train it "
            f"(make train MODEL={name} DATA=digits, then make export MODEL={name} DATA=digits), "
            f"or, for latency only, make export MODEL={name} WEIGHTS=random"
        )
    return get()


def settle_batch_norm(network: nn.Module, batches: Sequence[torch.Tensor]) -> None:
    """Gives a network with random weights the batch norm statistics of real ``batches``.

    Untrained statistics (mean 0, variance 1) let activations vanish layer by layer: logits of
    1e-9, denormal numbers that slow a CPU down, and ranges no int8 calibration can use.

    Args:
        network: uint8 (N, H, W, 3) -> logits; left in evaluation mode.
        batches: uint8 (N, H, W, 3) each.
    """
    torch.optim.swa_utils.update_bn(batches, network)
    network.eval()
