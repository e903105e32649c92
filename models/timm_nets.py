"""Whatever timm knows, as ``timm/<name>``: no network here has a line of its own."""

from __future__ import annotations

import re
from types import ModuleType
from typing import Any

from torch import nn

from core.errors import UserError, closest, first_line
from core.preprocess import Preprocess
from models.imagenet import imagenet_labels
from models.registry import TIMM, Entry
from models.weights import ImageNetWeights, WeightsUnavailable


def timm_entry(name: str) -> Entry:
    """Returns the entry of timm's network ``name``, which may carry a tag of its weights.

    Raises:
        UserError: timm is not installed, or knows no such network.
    """
    timm = import_timm()
    if not timm.is_model(name):
        raise UserError(f"unknown model {TIMM + name!r}: {closest(name, timm.list_models())}")

    def build(num_classes: int) -> nn.Module:
        network: nn.Module = timm.create_model(name, num_classes=num_classes)
        return network

    size = timm.get_pretrained_cfg(name).input_size[-1]
    return Entry(build, _family(timm, name), size, 1000, lambda: _imagenet(name))


def _family(timm: ModuleType, name: str) -> str:
    """Returns the file of timm that builds ``name``, such as ``vision_transformer``.

    Networks of one file are one family. Its files of MobileNets hold several generations and, for
    some, EfficientNets beside them: these go by their name, as the same networks do in this house.
    """
    if found := re.match(r"(?:tf_)?mobilenetv(\d)", name):
        return f"mobilenet_v{found[1]}"
    module: str = timm.models.model_entrypoint(name).__module__
    return module.rpartition(".")[2]


def import_timm() -> ModuleType:
    """Returns the timm module, or raises UserError saying how to install it."""
    try:
        import timm
    except ImportError as error:
        raise UserError(f"timm is not installed ({error}); pip install .[timm]") from None
    module: ModuleType = timm
    return module


def _imagenet(name: str) -> ImageNetWeights:
    timm = import_timm()
    try:
        network = timm.create_model(name, pretrained=True)
    except Exception as error:  # the hub's client has many kinds of not getting a file
        raise WeightsUnavailable(
            f"{TIMM}{name}: its ImageNet weights cannot be fetched ({first_line(error)})"
        ) from None
    config: dict[str, Any] = timm.data.resolve_model_data_config(network)
    crop = config["input_size"][-1]
    return ImageNetWeights(
        state_dict=network.state_dict(),
        labels=imagenet_labels(),
        preprocess=Preprocess(
            resize=int(crop / config["crop_pct"]),
            crop=crop,
            interpolation=config["interpolation"],
        ),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        origin=f"timm {name}",
    )
