"""The networks torchvision implements, under torchvision's own names."""

from __future__ import annotations

import functools

import torchvision
from torch import nn

from models.registry import register_model

# name -> native input side in pixels, which is the crop of torchvision's default weights.
_NATIVE_SIZE = {
    "mobilenet_v3_large": 224,
}


def _build(name: str, num_classes: int) -> nn.Module:
    network: nn.Module = torchvision.models.get_model(name, weights=None, num_classes=num_classes)
    return network


for _name, _size in _NATIVE_SIZE.items():
    register_model(_name, functools.partial(_build, _name), native_size=_size)
