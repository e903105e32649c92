"""Finds the weights of a network in a file, by the network's own keys and shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import NamedTuple

from core.image_size import Size
from models.meta import build_on_meta
from models.saved_weights import SavedWeights, Tensors

_PROBES = (7, 11)  # numbers of classes; tensors whose shapes differ between them are the head
_COUNTERS = (".total_ops", ".total_params")  # buffers that thop adds to a network


class Place(NamedTuple):
    """The location of a network's weights in a file.

    ``group`` is the dictionary, ``prefix`` a prefix of each key, such as ``module.``.
    """

    group: str
    prefix: str

    @property
    def entry(self) -> str:
        """Returns group and prefix as one name, such as ``state_dict.module``; may be empty."""
        return ".".join(part for part in (self.group, self.prefix.rstrip(".")) if part)


def probe(model: str, channels: int = 3) -> tuple[Tensors, dict[str, int]]:
    """Returns all tensors of a network with 7 classes on the meta device, and its head's keys.

    The keys of the head are given with the dimension that is the number of classes.
    """
    few, more = (on_meta(model, classes, channels=channels) for classes in _PROBES)
    head = {
        key: next(axis for axis, size in enumerate(few[key].shape) if size != more[key].shape[axis])
        for key in few
        if few[key].shape != more[key].shape
    }
    return few, head


def on_meta(model: str, classes: int, size: Size | None = None, channels: int = 3) -> Tensors:
    """Returns all tensors of a network with ``classes`` classes, on the meta device.

    ``size`` and ``channels`` are those of the images, as in :func:`models.registry.build_model`.
    """
    network = build_on_meta(model, num_classes=classes, size=size, channels=channels)
    return network.state_dict()


def places(saved: SavedWeights, keys: Collection[str]) -> Counter[Place]:
    """Counts for each place of the file how many of ``keys`` it has."""
    found: Counter[Place] = Counter()
    for group, tensors in saved.groups.items():
        for key in tensors:
            parts = key.split(".")
            for start in range(len(parts)):
                if (end := ".".join(parts[start:])) in keys:
                    found[Place(group, key.removesuffix(end))] += 1
    return found


def inside(saved: SavedWeights, place: Place) -> Tensors:
    """Returns the tensors at a place of a file, by key without the prefix."""
    tensors = saved.groups[place.group].items()
    return {
        key.removeprefix(place.prefix): tensor
        for key, tensor in tensors
        if key.startswith(place.prefix) and not f".{key}".endswith(_COUNTERS)
    }
