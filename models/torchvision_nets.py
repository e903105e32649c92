"""The networks torchvision implements, under torchvision's own names.

A width is a suffix: ``mobilenet_v2_x0_75`` is torchvision's ``mobilenet_v2(width_mult=0.75)``.
"""

from __future__ import annotations

import functools
import urllib.error
from typing import Any

import torchvision
from torch import nn

from core.preprocess import Preprocess
from models.imagenet import ImageNetWeights, WeightsUnavailable
from models.registry import NETWORKS, Entry

# family -> name -> side in pixels of the input the network was designed for. ImageNet weights may
# have been trained at another: theirs comes with them.
_NATIVE_SIZE = {
    "mobilenet_v2": {"mobilenet_v2": 224},
    "mobilenet_v3": {"mobilenet_v3_large": 224, "mobilenet_v3_small": 224},
    # First unit of stage 2: out/2 + out/2 channels. The paper's code has 24 + (out - 24), so MACs
    # differ a little (144.9 against 145.8 M at 1.0x); torchvision's weights fit torchvision's.
    "shufflenet_v2": {
        "shufflenet_v2_x0_5": 224,
        "shufflenet_v2_x1_0": 224,
        "shufflenet_v2_x1_5": 224,
        "shufflenet_v2_x2_0": 224,
    },
    "efficientnet": {
        "efficientnet_b0": 224,
        "efficientnet_b1": 240,
        "efficientnet_b2": 260,
        "efficientnet_b3": 300,
        "efficientnet_b4": 380,
        "efficientnet_b5": 456,
        "efficientnet_b6": 528,
        "efficientnet_b7": 600,
    },
    "efficientnet_v2": {
        "efficientnet_v2_s": 384,
        "efficientnet_v2_m": 480,
        "efficientnet_v2_l": 480,
    },
    "resnet": {"resnet50": 224, "resnext50_32x4d": 224},
    "densenet": {"densenet121": 224},
    "vgg": {"vgg16": 224},
}

# family -> name -> widths without published weights.
_WIDTHS: dict[str, dict[str, tuple[float, ...]]] = {
    "mobilenet_v2": {"mobilenet_v2": (0.35, 0.5, 0.75, 1.4)},
    # The head is scaled too, which the paper's is not.
    "mobilenet_v3": {"mobilenet_v3_large": (0.75,), "mobilenet_v3_small": (0.75,)},
}


def _build(name: str, num_classes: int, **options: Any) -> nn.Module:
    network: nn.Module = torchvision.models.get_model(
        name, weights=None, num_classes=num_classes, **options
    )
    return network


WITH_WEIGHTS = tuple(name for sizes in _NATIVE_SIZE.values() for name in sizes)


def default_weights(name: str) -> Any:
    """Returns torchvision's entry of the weights that a network of :data:`WITH_WEIGHTS` gets."""
    return torchvision.models.get_model_weights(name).DEFAULT


def _imagenet(name: str) -> ImageNetWeights:
    """Returns torchvision's default weights; files under ``TORCH_HOME`` need no network."""
    weights = default_weights(name)
    try:
        state_dict = weights.get_state_dict(progress=True, check_hash=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        reason = getattr(error, "reason", error)
        file = weights.url.rpartition("/")[2]
        raise WeightsUnavailable(
            f"{name}: its ImageNet weights cannot be fetched ({reason}); "
            f"put {file} into $TORCH_HOME/hub/checkpoints"
        ) from None
    transforms = weights.transforms()
    return ImageNetWeights(
        state_dict=state_dict,
        labels=tuple(weights.meta["categories"]),
        preprocess=Preprocess(
            resize=transforms.resize_size[0],
            crop=transforms.crop_size[0],
            interpolation=transforms.interpolation.value,
        ),
        mean=tuple(transforms.mean),
        std=tuple(transforms.std),
        origin=f"torchvision {weights}",
    )


for _family, _sizes in _NATIVE_SIZE.items():
    for _name, _size in _sizes.items():
        NETWORKS.register(
            Entry(
                name=_name,
                build=functools.partial(_build, _name),
                family=_family,
                native_size=_size,
                imagenet=functools.partial(_imagenet, _name),
            )
        )

for _family, _scaled in _WIDTHS.items():
    for _name, _widths in _scaled.items():
        for _width in _widths:
            NETWORKS.register(
                Entry(
                    name=f"{_name}_x{_width}".replace(".", "_"),
                    build=functools.partial(_build, _name, width_mult=_width),
                    family=_family,
                )
            )
