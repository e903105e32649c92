"""Finds the input sizes that a network accepts, by trying them.

It runs on torch's meta device, which computes only shapes: at most a second, and no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import nn

from core.errors import UserError, in_words
from core.image_size import Size, in_full, sides
from models.registry import build_model, find_model

_STEPS = (1, 2, 4, 7, 8, 14, 16, 28, 32, 48, 56, 64)
"""Candidate steps in pixels between accepted sizes: strides, patches or windows of networks."""


def check_input_size(
    name: str,
    *sizes: Size,
    classes: int = 1000,
    batch: int | None = None,
    resized: bool = False,
    channels: int = 3,
) -> None:
    """Checks that network ``name`` accepts images of all ``sizes``.

    Args:
        name: registry name.
        sizes: of the images, in pixels.
        classes: number of classes.
        batch: batch size to check for training too; None checks inference only.
        resized: builds the network for each size, see :attr:`models.registry.Entry.resized`.
        channels: of the images.

    Raises:
        UserError: it does not; the message gives the sizes it accepts, or another reason.
    """
    network = _on_meta(name, classes, channels=channels)
    for size in sizes:
        if resized and find_model(name).resized is not None:
            if refusal := _refusal(
                _on_meta(name, classes, size, channels).eval(), size, classes, 1, channels
            ):
                raise UserError(f"{name} cannot take {in_full(size)} images: {refusal}")
            continue
        if refusal := _refusal(network.eval(), size, classes, 1, channels):
            accepted = _sizes(name, network, classes, channels)
            why = accepted if isinstance(size, int) else f"{refusal}; of square ones, {accepted}"
            raise UserError(f"{name} cannot take {in_full(size)} images: {why}")
        if batch is None or not (refusal := _refusal(network.train(), size, classes, batch)):
            continue
        if batch == 1 and not _refusal(network, size, classes, 2):
            raise UserError(
                f"{name} cannot be trained on one {in_full(size)} image at a time, as its batch "
                "norm needs two: batch_size / accumulate must be at least 2 on each device"
            )
        raise UserError(f"{name} cannot be trained on {in_full(size)} images: {refusal}")


def input_sizes(name: str) -> str:
    """Returns a text such as ``at least 32x32``: the square images that network ``name`` accepts.

    Raises:
        UserError: unknown network, or one that accepts no square images.
    """
    classes = find_model(name).native_classes
    return _sizes(name, _on_meta(name, classes).eval(), classes)


def _on_meta(name: str, classes: int, size: Size | None = None, channels: int = 3) -> nn.Module:
    with torch.device("meta"):
        return build_model(name, num_classes=classes, size=size, channels=channels)


def _refusal(
    network: nn.Module, size: Size, classes: int, images: int = 1, channels: int = 3
) -> str | None:
    """Returns why ``network``, in its current mode, rejects images; None if it accepts them."""
    try:
        with torch.device("meta"):
            logits = network(torch.empty(images, channels, *sides(size)))
    except Exception as error:  # networks raise any type of exception for sizes they do not support
        return in_words(error)
    shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if shape == (images, classes):
        return None
    return f"it has no classifier, as it gives {shape} and not logits {(images, classes)}"


def _sizes(name: str, network: nn.Module, classes: int, channels: int = 3) -> str:
    """Returns a text with the square images ``network`` accepts, trying sizes near its native one.

    Where that is not square, its shorter side is the first to be tried.

    Raises:
        UserError: it does not even accept its native size.
    """
    designed = find_model(name).native_size
    if refusal := _refusal(network, designed, classes, 1, channels):
        raise UserError(f"{name} cannot be used, not even at {in_full(designed)}: {refusal}")
    native = min(sides(designed))

    @cache
    def takes(side: int) -> bool:
        return not _refusal(network, side, classes, 1, channels)

    if not takes(native):
        return f"{in_full(designed)}, and not {native}x{native}"
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
    """Returns the smallest accepted side, a whole number of ``step`` below ``native``."""
    low, high = 0, native // step  # steps below native: known to be accepted, and not known
    while low < high:
        middle = (low + high + 1) // 2
        if native - middle * step > 0 and takes(native - middle * step):
            low = middle
        else:
            high = middle - 1
    return native - low * step
