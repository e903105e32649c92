"""Networks of torchvision, under torchvision's names.

Widths are suffixes: ``mobilenet_v2_x0_75`` is torchvision's ``mobilenet_v2(width_mult=0.75)``.
"""

from __future__ import annotations

import functools
import urllib.error
from typing import Any

import torchvision
from torch import nn

from core.errors import UserError, closest
from core.preprocess import Preprocess
from models.imagenet import ImageNetWeights, PublishedForm, WeightsUnavailable
from models.registry import NETWORKS, TORCHVISION, Entry
from models.saved_weights import modern_key

# family -> name -> native side in pixels. ImageNet weights may have been trained at another size,
# which they state themselves.
_NATIVE_SIZE = {
    "mobilenet_v2": {"mobilenet_v2": 224},
    "mobilenet_v3": {"mobilenet_v3_large": 224, "mobilenet_v3_small": 224},
    # First unit of stage 2: out/2 + out/2 channels. In the paper's code it has 24 + (out - 24), so
    # MACs differ slightly (144.9 and 145.8 M at 1.0x). torchvision's weights need the former.
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
    # The head is scaled too; the paper does not scale it.
    "mobilenet_v3": {"mobilenet_v3_large": (0.75,), "mobilenet_v3_small": (0.75,)},
}

# With published weights torchvision sets an attribute by which these two convert their input from
# ImageNet's mean to 0.5. No state dict holds it; here their normalisation uses 0.5 instead.
_SHIFTED: dict[str, dict[str, bool]] = {
    "googlenet": {"transform_input": False, "aux_logits": False, "init_weights": False},
    "inception_v3": {"transform_input": False, "init_weights": False},
}


def _build(name: str, num_classes: int, **options: Any) -> nn.Module:
    network: nn.Module = torchvision.models.get_model(
        name, weights=None, num_classes=num_classes, **_SHIFTED.get(name, {}), **options
    )
    return network


def list_classifiers() -> list[str]:
    """Returns the names of all classifiers in torchvision."""
    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def torchvision_entry(name: str) -> Entry:
    """Returns an entry for any classifier of torchvision, registered here or not.

    Raises:
        UserError: torchvision has no such classifier.
    """
    if name not in (names := list_classifiers()):
        hint = closest(name, names, show=TORCHVISION.__add__)
        raise UserError(f"unknown model {TORCHVISION + name!r}: {hint}")
    return Entry(
        name=f"{TORCHVISION}{name}",
        build=functools.partial(_build, name),
        family=torchvision.models.get_model_builder(name).__module__.rpartition(".")[2],
        native_size=torchvision_form(name).preprocess.crop,
        imagenet=None if name in _SHIFTED else functools.partial(_imagenet, name),
        form=functools.partial(torchvision_form, name),
    )


WITH_WEIGHTS = tuple(name for sizes in _NATIVE_SIZE.values() for name in sizes)


def default_weights(name: str) -> Any:
    """Returns torchvision's entry of the weights used for a network of :data:`WITH_WEIGHTS`."""
    return torchvision.models.get_model_weights(name).DEFAULT


def torchvision_form(name: str) -> PublishedForm:
    """Returns the preprocessing that torchvision's default weights of ``name`` expect."""
    transforms = default_weights(name).transforms()
    preprocess = Preprocess(
        resize=transforms.resize_size[0],
        crop=transforms.crop_size[0],
        interpolation=transforms.interpolation.value,
    )
    if name in _SHIFTED:
        return PublishedForm(preprocess, (0.5,) * 3, (0.5,) * 3)
    return PublishedForm(preprocess, tuple(transforms.mean), tuple(transforms.std))


def _imagenet(name: str) -> ImageNetWeights:
    """Returns torchvision's default weights, downloaded unless they are under ``TORCH_HOME``."""
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
    form = torchvision_form(name)
    return ImageNetWeights(
        state_dict={modern_key(key): value for key, value in state_dict.items()},
        labels=tuple(weights.meta["categories"]),
        preprocess=form.preprocess,
        mean=form.mean,
        std=form.std,
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
                form=functools.partial(torchvision_form, _name),
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
