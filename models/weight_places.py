"""Where the weights of a network stand in a file, by the keys and shapes that it has itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any, NamedTuple

import torch
from torch.overrides import TorchFunctionMode

from models.registry import build_model
from models.saved_weights import SavedWeights, Tensors

_PROBES = (7, 11)  # numbers of classes; what differs between them is the head
_DRAWING = (torch.Tensor.normal_, torch.Tensor.uniform_)
_COUNTERS = (".total_ops", ".total_params")  # thop writes them into a network that it counts


class _NoDrawing(TorchFunctionMode):
    """Skips drawing random weights, which takes most of the time even where there are none."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        return args[0] if func in _DRAWING else func(*args, **(kwargs or {}))


class Place(NamedTuple):
    """Where the weights of a network stand in a file.

    ``group`` is the dictionary, ``prefix`` what each key begins with, such as ``module.``.
    """

    group: str
    prefix: str

    @property
    def entry(self) -> str:
        """Returns both as one name, such as ``state_dict.module``; empty for a bare state dict."""
        return ".".join(part for part in (self.group, self.prefix.rstrip(".")) if part)


def probe(model: str) -> tuple[Tensors, dict[str, int]]:
    """Returns all tensors of a network on the meta device, and the keys of its head.

    The latter with the dimension that is the number of classes; in the tensors it is 7.
    """
    few, more = (on_meta(model, classes) for classes in _PROBES)
    head = {
        key: next(axis for axis, size in enumerate(few[key].shape) if size != more[key].shape[axis])
        for key in few
        if few[key].shape != more[key].shape
    }
    return few, head


def on_meta(model: str, classes: int) -> Tensors:
    """Returns all tensors of a network for so many classes, on the meta device: shapes only."""
    with torch.device("meta"), _NoDrawing():
        return build_model(model, num_classes=classes).state_dict()


def places(saved: SavedWeights, keys: Collection[str]) -> Counter[Place]:
    """Returns how many of ``keys`` stand in the file at each place that has some."""
    found: Counter[Place] = Counter()
    for group, tensors in saved.groups.items():
        for key in tensors:
            parts = key.split(".")
            for start in range(len(parts)):
                if (end := ".".join(parts[start:])) in keys:
                    found[Place(group, key.removesuffix(end))] += 1
    return found


def inside(saved: SavedWeights, place: Place) -> Tensors:
    """Returns the tensors at a place of a file, by their keys without its prefix."""
    tensors = saved.groups[place.group].items()
    return {
        key.removeprefix(place.prefix): tensor
        for key, tensor in tensors
        if key.startswith(place.prefix) and not f".{key}".endswith(_COUNTERS)
    }
