"""ImageNet-1k: class names, and the types that describe published weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from core.errors import UserError
from core.preprocess import Preprocess

if TYPE_CHECKING:
    import torch


class PublishedForm(NamedTuple):
    """The preprocessing and normalisation that a publisher's weights expect."""

    preprocess: Preprocess
    mean: tuple[float, ...]  # per channel, for pixels in [0, 1]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageNetWeights:
    """Published weights, with their labels, preprocessing and normalisation.

    Attributes:
        state_dict: state dict of the backbone.
        labels: class names, in the order of the logits; empty if the weights have no classifier
            (they end in features or an embedding) and are only useful for fine-tuning.
        preprocess: the publisher's resize and crop.
        mean: per channel, for pixels in [0, 1].
        std: standard deviation, likewise.
        origin: publisher and name of the weights.
    """

    state_dict: dict[str, torch.Tensor]
    labels: tuple[str, ...]
    preprocess: Preprocess
    mean: tuple[float, ...]
    std: tuple[float, ...]
    origin: str


class WeightsUnavailable(UserError):
    """ImageNet weights that were never published, or can be neither found nor downloaded.

    The message contains no remedy, as that depends on what the weights are needed for.
    """


def imagenet_labels() -> tuple[str, ...]:
    """Returns the 1,000 class names in the standard order, from torchvision's weights."""
    import torchvision

    return tuple(torchvision.models.ResNet50_Weights.DEFAULT.meta["categories"])
