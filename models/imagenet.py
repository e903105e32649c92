"""ImageNet-1k: its class names, and weights as their publishers give them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from core.errors import UserError
from core.preprocess import Preprocess

if TYPE_CHECKING:
    import torch


class PublishedForm(NamedTuple):
    """What a publisher does to an image before the network sees it."""

    preprocess: Preprocess
    mean: tuple[float, ...]  # per channel, of pixels in [0, 1]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageNetWeights:
    """Published weights, with their labels, preprocessing and normalisation.

    Attributes:
        state_dict: of the backbone.
        labels: the class names, in the order of the logits; none where the weights end in
            features, or in an embedding: they are only good to be trained on.
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


class WeightsUnavailable(UserError):
    """ImageNet weights that nobody published, or that can be neither found nor fetched.

    Its message leaves out the remedy, which depends on what the weights are for.
    """


def imagenet_labels() -> tuple[str, ...]:
    """Returns the 1,000 class names in the usual order, as torchvision's weights carry them."""
    import torchvision

    return tuple(torchvision.models.ResNet50_Weights.DEFAULT.meta["categories"])
