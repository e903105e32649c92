"""Finds the input sizes that a network accepts, by trying them.

It runs on torch's meta device, which computes only shapes: at most a second, and no memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import nn

from core import cli
from core.errors import UserError, in_words
from core.image_size import Size, in_full, sides
from models.meta import build_on_meta
from models.registry import find_model

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
    """Checks that network ``name`` accepts images of all ``sizes``; notes if it drops their border.

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
    network = build_on_meta(name, num_classes=classes, channels=channels)
    for size in sizes:
        if resized and find_model(name).resized is not None:
            built = build_on_meta(name, num_classes=classes, size=size, channels=channels).eval()
            if refusal := _refusal(built, size, classes, 1, channels):
                raise UserError(f"{name} cannot take {in_full(size)} images: {refusal}")
            _note_dropped(name, built, size, channels)
            continue
        if refusal := _refusal(network.eval(), size, classes, 1, channels):
            accepted = _sizes(name, network, classes, channels)
            why = accepted if isinstance(size, int) else f"{refusal}; of square ones, {accepted}"
            raise UserError(f"{name} cannot take {in_full(size)} images: {why}")
        _note_dropped(name, network, size, channels)
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
    return _sizes(name, build_on_meta(name, num_classes=classes).eval(), classes)


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


def _note_dropped(name: str, network: nn.Module, size: Size, channels: int) -> None:
    """Prints a line if rows or columns of images are dropped, as they do not fill a patch."""
    if words := dropped_border(network, size, channels):
        cli.notes().print(f"note: {name}: {words}", soft_wrap=True, markup=False)


def dropped_border(network: nn.Module, size: Size, channels: int = 3) -> str:
    """Returns in words which rows and columns a network of patches drops; empty if none.

    Such networks begin with a convolution whose stride is its kernel, as in ViT and ConvNeXt. Some
    pad the images before it, so its own input is looked at.

    Args:
        network: float32 (N, C, H, W) -> logits, on the meta device.
        size: of the images, in pixels; one that it accepts.
        channels: of the images.
    """
    layers = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    stem = next(layers, None)
    if stem is None or stem.kernel_size != stem.stride or stem.padding != (0, 0):
        return ""
    found: list[torch.Size] = []
    hook = stem.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0].shape[-2:]))
    _refusal(network, size, 0, 1, channels)
    hook.remove()
    if not found:  # it is not used for images
        return ""
    patches = list(zip(found[0], stem.kernel_size, strict=True))
    rows, columns = (side % patch for side, patch in patches)
    if not rows and not columns:
        return ""
    patch = "x".join(str(patch) for _, patch in patches)
    below = "x".join(str(side // patch * patch) for side, patch in patches)
    above = "x".join(str(math.ceil(side / patch) * patch) for side, patch in patches)
    return (
        f"patches of {patch} pixels do not fill {in_full(size)}: the last {rows} rows and "
        f"{columns} columns are dropped; --size {below} or {above} drops none"
    )


def _sizes(name: str, network: nn.Module, classes: int, channels: int = 3) -> str:
    """Returns a text with the square images ``network`` accepts, trying sizes near its native one.

    Where that is not square, its shorter side is the first to be tried.

    Raises:
        UserError: it does not even accept its native size.
    """
    designed = find_model(name).native_size
    if refusal := _refusal(network, designed, classes, 1, channels):
        images = in_full(designed) + (f" of {channels} channels" if channels != 3 else "")
        raise UserError(f"{name} cannot be used, not even at {images}: {refusal}")
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
