"""Networks by name. Importing this file loads no torch; building a network does."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.errors import UserError, closest

if TYPE_CHECKING:
    from torch import nn

    Builder = Callable[[int], nn.Module]

# The files that register networks. A new file of networks is one more line here.
_FAMILIES = ("models.torchvision_nets",)
_ALIASES = {"mobilenet_v3": "mobilenet_v3_large"}


@dataclass(frozen=True, slots=True)
class Entry:
    """A registered network: how to build it, and the input side in pixels it was designed for."""

    build: Builder
    native_size: int


_ENTRIES: dict[str, Entry] = {}


def register_model(name: str, build: Builder, *, native_size: int = 224) -> None:
    """Makes ``build(num_classes)`` known as ``name``."""
    assert name not in _ENTRIES, f"{name} is registered twice"
    _ENTRIES[name] = Entry(build, native_size)


def list_models() -> list[str]:
    """Returns the names of all networks, sorted."""
    return sorted(_entries())


def canonical_name(name: str) -> str:
    """Returns the one name a network is filed under: ``mobilenet_v3`` is ``mobilenet_v3_large``."""
    return _ALIASES.get(name, name)


def find_model(name: str) -> Entry:
    """Returns the entry of a network, by its name or an alias.

    Raises:
        UserError: there is no such network; the closest names are in the message.
    """
    entries = _entries()
    if (known := canonical_name(name)) not in entries:
        raise UserError(f"unknown model {name!r}: {closest(name, [*entries, *_ALIASES])}")
    return entries[known]


def build_model(name: str, *, num_classes: int = 1000) -> nn.Module:
    """Returns network ``name`` with random weights: float32 (N, 3, H, W) -> (N, num_classes).

    Raises:
        UserError: an unknown name, or ``num_classes`` below 1.
    """
    if num_classes < 1:
        raise UserError(f"num_classes is {num_classes}: it must be at least 1")
    return find_model(name).build(num_classes)


def _entries() -> dict[str, Entry]:
    for family in _FAMILIES:
        importlib.import_module(family)
    return _ENTRIES
