"""The registry of networks. Importing this module does not import torch; building one does."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from core.errors import UserError, closest
from core.image_size import Size
from core.lazy import resolve
from core.names import ALIASES, canonical_name
from core.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from models.imagenet import ImageNetWeights, PublishedForm

    Builder = Callable[[int], nn.Module]
    Coloured = Callable[[int, Size | None, int], nn.Module]

# Modules that register networks. Add a line for each new one.
_FAMILIES = (
    "models.torchvision_nets",
    "models.efficientnet_lite",
    "models.mobilenet_v1",
    "models.shufflenet_v1",
    "models.resnet_tweaks",
    "models.resnet14",
)
# Networks exported and measured by default: small ones, and larger ones to compare with.
DEFAULT_NETWORKS = (
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "mobilenet_v3_small",
    "shufflenet_v1_g3",
    "shufflenet_v2_x1_0",
    "efficientnet_b0",
    "efficientnet_lite0",
    "efficientnet_v2_s",
    "resnet50",
    "resnet50_d",
    "resnext50_32x4d",
)
TIMM = "timm/"
TORCHVISION = "torchvision/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A registered network.

    Attributes:
        name: registry name.
        build: takes ``num_classes`` and returns the network with random weights.
        family: name shared by its variants of other widths and depths.
        native_size: size in pixels of the images it was designed for.
        native_classes: number of classes it was designed for.
        imagenet: loads its published ImageNet weights; None if there are none.
        form: returns the preprocessing that the published weights expect; None if not known.
        resized: takes ``num_classes`` and the size of the images, and returns the network built for
            them; None if its layers do not depend on the size of the images.
        coloured: takes ``num_classes``, the size of the images (None for the native one) and their
            channels, and returns the network built for them; None if only its first convolution is
            another one.
    """

    name: str
    build: Builder
    family: str
    native_size: Size = 224
    native_classes: int = 1000
    imagenet: Callable[[], ImageNetWeights] | None = None
    form: Callable[[], PublishedForm] | None = None
    resized: Callable[[int, Size], nn.Module] | None = None
    coloured: Coloured | None = None


NETWORKS = Registry[Entry]("model")


def list_models() -> list[str]:
    """Returns the names of all networks, sorted."""
    return sorted(_entries())


def list_families() -> list[str]:
    """Returns the families of all networks, sorted."""
    return sorted({entry.family for entry in _entries().values()})


def find_model(name: str) -> Entry:
    """Returns the entry of a network, by its name or an alias.

    ``timm/<name>`` and ``torchvision/<name>`` are networks of those libraries.

    Raises:
        UserError: unknown network; the message lists the closest names.
    """
    if name.startswith(TIMM):
        entry: Entry = resolve("models.timm_nets:timm_entry")(name.removeprefix(TIMM))
        return entry
    if name.startswith(TORCHVISION):
        entry = resolve("models.torchvision_nets:torchvision_entry")(name.removeprefix(TORCHVISION))
        return entry
    entries = _entries()
    if (known := canonical_name(name)) not in entries:
        raise _unknown(name)
    return entries[known]


def build_model(
    name: str, *, num_classes: int = 1000, size: Size | None = None, channels: int = 3
) -> nn.Module:
    """Returns network ``name`` with random weights: float32 (N, C, H, W) -> (N, num_classes).

    Args:
        name: registry name or alias.
        num_classes: number of classes.
        size: of the images, in pixels, for networks that are built for one size; None for the
            native one.
        channels: of the images.

    Raises:
        UserError: unknown name, ``num_classes`` below 1, or a size or channels that it cannot be
            built for.
    """
    if num_classes < 1:
        raise UserError(f"num_classes is {num_classes}: it must be at least 1")
    entry = find_model(name)
    if entry.resized is None or size == entry.native_size:
        size = None
    if channels != 3 and entry.coloured is not None:
        return entry.coloured(num_classes, size, channels)
    if entry.resized is None or size is None:
        network = entry.build(num_classes)
    else:
        network = entry.resized(num_classes, size)
    if channels != 3:
        resolve("models.channels:replace_stem")(network, name, channels)
    return network


def _unknown(name: str) -> UserError:
    own = [*_entries(), *ALIASES]
    try:
        timms = set(resolve("models.timm_nets:import_timm")().list_models())
    except UserError:  # timm is optional and not installed
        timms = set()
    network = name.partition(".")[0]  # without timm's tag of the weights
    torchvisions = resolve("models.torchvision_nets:list_classifiers")()
    if meant := [f"{TORCHVISION}{name}"] * (name in torchvisions) + [f"{TIMM}{name}"] * (
        network in timms
    ):
        return UserError(f"unknown model {name!r}: did you mean {' or '.join(meant)}?")
    hint = closest(
        network, timms.union(own), show=lambda each: each if each in own else TIMM + each
    )
    return UserError(f"unknown model {name!r}: {hint}")


def _entries() -> Registry[Entry]:
    for family in _FAMILIES:
        importlib.import_module(family)
    return NETWORKS
