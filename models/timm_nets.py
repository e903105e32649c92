"""Networks of timm, as ``timm/<name>``."""

from __future__ import annotations

import functools
import re
import sys
from collections import defaultdict
from types import ModuleType
from typing import Any

from torch import nn

from core.errors import UserError, closest, first_line
from core.image_size import Size, in_full, size_of
from core.preprocess import Preprocess
from models.hub_reach import cache_if_unreachable
from models.imagenet import (
    ImageNetWeights,
    PublishedForm,
    WeightsUnavailable,
    imagenet_labels,
)
from models.registry import TIMM, Entry
from models.saved_weights import Tensors

# Parts of the names of image-text networks. Nothing else in timm distinguishes the width of their
# embedding, such as 512, from a number of classes.
_EMBEDDINGS = ("clip", "_pe_core_")


def timm_entry(name: str) -> Entry:
    """Returns the entry of timm's network ``name``, which may include a tag of its weights.

    Raises:
        UserError: timm is not installed, or has no such network or tag.
    """
    timm = import_timm()
    if name.startswith("hf-hub:"):
        raise UserError(f"{TIMM}{name}: weights on the hub can only be exported; pass {TIMM}NAME")
    network, _, tag = name.partition(".")
    if not timm.is_model(network):
        hint = closest(network, timm.list_models(), show=TIMM.__add__)
        raise UserError(f"unknown model {TIMM + name!r}: {hint}")
    tags = _tags().get(network, [])
    if tag and tag not in tags:
        prefix = f"{TIMM}{network}."
        hint = closest(tag, tags, show=prefix.__add__) if tags else "nobody published any"
        raise UserError(f"unknown weights {tag!r} of {TIMM}{network}: {hint}")
    _, height, width = timm.get_pretrained_cfg(name).input_size

    def build(num_classes: int) -> nn.Module:
        network: nn.Module = timm.create_model(name, num_classes=num_classes)
        return network

    def resized(num_classes: int, size: Size) -> nn.Module:
        return coloured(num_classes, size, 3)

    def coloured(num_classes: int, size: Size | None, channels: int) -> nn.Module:
        options: dict[str, Any] = {"num_classes": num_classes}
        if size is not None:
            options["img_size"] = size
        if channels != 3:
            options["in_chans"] = channels
        try:
            network: nn.Module = timm.create_model(name, **options)
        except Exception as error:  # whatever the network's own code raises
            images = f"{in_full(size)} images" if size is not None else "images"
            images += f" of {channels} channels" if channels != 3 else ""
            raise UserError(
                f"{TIMM}{name} cannot be built for {images} ({first_line(error)})"
            ) from None
        return network

    imagenet = functools.partial(_imagenet, name) if tags else None
    fixed = timm.get_pretrained_cfg(name).fixed_input_size
    return Entry(
        name=f"{TIMM}{name}",
        build=build,
        family=_family(timm, name),
        native_size=size_of(height, width),
        imagenet=imagenet,
        form=functools.partial(timm_form, name),
        resized=resized if fixed else None,
        coloured=coloured,
    )


def _family(timm: ModuleType, name: str) -> str:
    """Returns the family of ``name``: its timm module, such as ``vision_transformer``.

    timm's MobileNet modules hold several generations and some EfficientNets; their families are
    taken from the name, as in this registry.
    """
    if found := re.match(r"(?:tf_)?mobilenetv(\d)", name):
        return f"mobilenet_v{found[1]}"
    module: str = timm.models.model_entrypoint(name).__module__
    return module.rpartition(".")[2]


def import_timm() -> ModuleType:
    """Returns the timm module; raises UserError with how to install it if it is missing."""
    try:
        import timm
    except ImportError as error:
        raise UserError(f"timm is not installed ({error}); pip install '.[timm]'") from None
    module: ModuleType = timm
    return module


@functools.cache
def _tags() -> dict[str, list[str]]:
    """Returns the tags of published weights, by network."""
    tags: dict[str, list[str]] = defaultdict(list)
    for name in import_timm().list_pretrained():
        network, _, tag = name.partition(".")
        tags[network].append(tag)
    return tags


def timm_converted(name: str, tensors: Tensors, network: nn.Module) -> Tensors | None:
    """Returns weights in the form of timm's ``network``, converted as timm does when it loads them.

    It renames the keys of the original authors' files and resamples position embeddings to another
    image size. Returns None if timm has no conversion for this network, or the conversion fails.

    Args:
        name: of the network, without ``timm/``.
        tensors: the weights, by key.
        network: that shall load them.
    """
    entrypoint = import_timm().models.model_entrypoint(name.partition(".")[0])
    convert = getattr(sys.modules[entrypoint.__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return None
    try:
        converted = convert(dict(tensors), network)
        return {str(key): tensor for key, tensor in converted.items()}
    except Exception:  # whatever it raises on weights of another network
        return None


def timm_form(name: str, arguments: dict[str, Any] | None = None) -> PublishedForm:
    """Returns the preprocessing that timm uses to validate network ``name``.

    Args:
        name: timm's name of the network, with or without a tag of its weights.
        arguments: arguments of the timm training run, which take precedence.
    """
    timm = import_timm()
    config = timm.get_pretrained_cfg(name).to_dict()
    return published_form(timm.data.resolve_data_config(arguments, pretrained_cfg=config))


def published_form(config: dict[str, Any]) -> PublishedForm:
    """Returns the preprocessing in a ``config`` of :func:`timm.data.resolve_data_config`."""
    height, width = config["input_size"][-2:]
    mean = tuple(config["mean"])
    border = config["crop_mode"] == "border"
    preprocess = Preprocess(
        resize=(int(height / config["crop_pct"]), int(width / config["crop_pct"])),
        crop=(height, width),
        interpolation=config["interpolation"],
        crop_mode=config["crop_mode"],
        fill=tuple(round(255 * value) for value in mean) if border else (0, 0, 0),  # as timm does
        channels=len(mean),
    )
    return PublishedForm(preprocess, mean, tuple(config["std"]))


def published_labels(name: str, classes: int) -> tuple[str, ...]:
    """Returns the class names of published weights, in the order of the logits.

    They are numbers if timm has no names; empty if the weights end in features or an embedding.

    Args:
        name: timm's name of the network, with or without a tag of its weights.
        classes: number of outputs; 0 without a classifier.
    """
    if classes == 1000:
        return imagenet_labels()
    if subset := _subset(classes):
        return _descriptions(subset)
    if any(word in name for word in _EMBEDDINGS):
        return ()
    return tuple(f"class {index}" for index in range(classes))


def _subset(classes: int) -> str | None:
    """Returns timm's name of the ImageNet subset with that many classes; None if there is none."""
    subset: str | None = import_timm().data.infer_imagenet_subset({"num_classes": classes})
    return subset


@functools.cache
def _descriptions(subset: str) -> tuple[str, ...]:
    return tuple(import_timm().data.ImageNetInfo(subset).label_descriptions())


def _imagenet(name: str) -> ImageNetWeights:
    timm = import_timm()
    with cache_if_unreachable() as unreachable:
        try:
            network = timm.create_model(name, pretrained=True)
        except Exception as error:  # the hub's client raises many types of exception
            raise WeightsUnavailable(
                f"{TIMM}{name}: its ImageNet weights cannot be fetched "
                f"({unreachable or first_line(error)})"
            ) from None
    classes = network.pretrained_cfg["num_classes"]
    form = published_form(timm.data.resolve_model_data_config(network))
    origin = f"timm {name}"
    if classes and not _subset(classes):
        origin += f" (timm names none of its {classes} outputs)"
    return ImageNetWeights(
        state_dict=network.state_dict(),
        labels=published_labels(name, classes),
        preprocess=form.preprocess,
        mean=form.mean,
        std=form.std,
        origin=origin,
    )
