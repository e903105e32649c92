"""The class names of ImageNet-1k."""

from __future__ import annotations

import torchvision


def imagenet_labels() -> tuple[str, ...]:
    """Returns the 1,000 class names in the usual order, as torchvision's weights carry them."""
    return tuple(torchvision.models.ResNet50_Weights.DEFAULT.meta["categories"])
