"""Finds the image sizes that a network takes, by trying them.

It is asked on torch's meta device, where shapes are computed and nothing else: a second at most,
and no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import nn

from core.errors import UserError, in_words
from models.registry import build_model, find_model

_STEPS = (1, 2, 4, 7, 8, 14, 16, 28, 32, 48, 56, 64)
"""Steps in pixels between the sizes a network may take: its strides, patches or windows."""


def check_input_size(name: str, *sizes: int, classes: int = 1000, batch: int | None = None) -> None:
    """Returns None if network ``name`` takes square images of each of ``sizes``, in pixels.

    Args:
        name: registry name.
        sizes: sides of the images.
        classes: that it shall tell apart.
        batch: images it is to be trained on at a time; None: it is not to be trained.

    Raises:
        UserError: it cannot; the message says which sizes it takes, or what else is in the way.
    """
    network = _on_meta(name, classes)
    for size in sizes:
        if _refusal(network.eval(), size, classes):
            raise UserError(
                f"{name} cannot take {size}x{size} images: {_sizes(name, network, classes)}"
            )
        if batch is None or not (refusal := _refusal(network.train(), size, classes, batch)):
            continue
        if batch == 1 and not _refusal(network, size, classes, 2):
            raise UserError(
                f"{name} cannot be trained on one {size}x{size} image at a time, as its batch norm "
                "needs two: batch_size / accumulate must be at least 2 on each device"
            )
        raise UserError(f"{name} cannot be trained on {size}x{size} images: {refusal}")


def input_sizes(name: str) -> str:
    """Returns in words which square images network ``name`` takes: ``at least 32x32``.

    Raises:
        UserError: it is unknown, or takes none.
    """
    classes = find_model(name).native_classes
    return _sizes(name, _on_meta(name, classes).eval(), classes)


def _on_meta(name: str, classes: int) -> nn.Module:
    with torch.device("meta"):
        return build_model(name, num_classes=classes)


def _refusal(network: nn.Module, side: int, classes: int, images: int = 1) -> str | None:
    """Returns why ``network``, in the mode it is in, cannot take images; None if it can."""
    try:
        with torch.device("meta"):
            logits = network(torch.empty(images, 3, side, side))
    except Exception as error:  # whatever the network's own code makes of a size it does not know
        return in_words(error)
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape == (images, classes):
        return None
    return f"it has no classifier, as it gives {shape} and not logits {(images, classes)}"


def _sizes(name: str, network: nn.Module, classes: int) -> str:
    """Returns in words which square images ``network`` takes, by trying sizes around its own.

    Raises:
        UserError: it does not take that of its design either.
    """
    native = find_model(name).native_size
    if refusal := _refusal(network, native, classes):
        raise UserError(f"{name} cannot be used, not even at {native}x{native}: {refusal}")

    @cache
    def takes(side: int) -> bool:
        return not _refusal(network, side, classes)

    step = next((step for step in (*_STEPS, native) if takes(native + step)), None)
    if step is None:
        return f"exactly {native}x{native}"
    smallest = _smallest(takes, native, step)
    if step == 1:
        return f"at least {smallest}x{smallest}"
    if smallest % step == 0:
        return f"a multiple of {step}, at least {smallest}x{smallest}"
    return f"{smallest}x{smallest} and steps of {step} pixels more"


def _smallest(takes: Callable[[int], bool], native: int, step: int) -> int:
    """Returns the smallest side, whole ``step``s below ``native``, from which on all are taken."""
    low, high = 0, native // step  # steps below native: surely taken, and not known to be
    while low < high:
        middle = (low + high + 1) // 2
        if native - middle * step > 0 and takes(native - middle * step):
            low = middle
        else:
            high = middle - 1
    return native - low * step
