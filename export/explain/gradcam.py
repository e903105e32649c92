"""Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391): which parts of an image speak for a class.

The feature maps of one layer are summed, each weighted by the mean of its gradient, and what is
negative is dropped. Of attention networks the tokens of the patches are such a map.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from artifact.records import Logits
from core.errors import UserError, closest
from core.preprocess import Pixels

LEAST = 4  # cells on a side: of a coarser map one sees little
_EXTRA_TOKENS = 5  # most tokens before those of the patches: class, distillation, registers
_SHOWN = 5  # most layers listed where no name is near


@dataclass(frozen=True, kw_only=True, slots=True)
class CamMap:
    """A Grad-CAM map.

    Attributes:
        logits: float32 (C,) of the network.
        heat: float32 (h, w) in [0, 1]; all zero if nothing speaks for the class.
        layer: name of the layer.
    """

    logits: Logits
    heat: npt.NDArray[np.float32]
    layer: str


@dataclass(frozen=True, slots=True)
class _Layer:
    """What a layer answers: a map (1, h, w, C) of ``output``.

    A container answers what its last layer does, so the same map may have several names.
    """

    names: list[str]
    output: torch.Tensor
    order: str  # "NCHW", "NHWC" or "NLC"
    grid: tuple[int, int]

    def cells(self, values: torch.Tensor) -> torch.Tensor:
        """Returns ``values``, of the output's shape, as (h, w, C)."""
        if self.order == "NCHW":
            return values[0].permute(1, 2, 0)
        height, width = self.grid
        return values[0].reshape(-1, values.shape[-1])[-height * width :].reshape(*self.grid, -1)


_Mapped = tuple[_Layer, torch.Tensor, torch.Tensor]  # a layer's output and gradient, (h, w, C)


def grad_cam(
    network: nn.Module, pixels: Pixels, index: int | None = None, *, layer: str | None = None
) -> CamMap:
    """Returns which parts of an image speak for a class.

    Args:
        network: uint8 (1, H, W, C) -> logits (1, classes), in evaluation mode.
        pixels: uint8 (H, W, C).
        index: of the class; None for the most likely one.
        layer: name of the layer; None for the last one with a map of the image that the class
            depends on, of at least 4 cells on a side if there is one.

    Raises:
        UserError: no such layer, or no layer whose output is a map of the image.
    """
    logits, layers = _run(network, pixels)
    found = int(logits[0].argmax()) if index is None else index
    if not layers or not logits.requires_grad:
        raise UserError(
            "Grad-CAM: no layer of this network answers a map of the image; it needs a "
            "convolutional network, or one of patches, whose layers are torch modules"
        )
    gradients = torch.autograd.grad(
        logits[0, found], [each.output for each in layers], allow_unused=True
    )
    maps = [
        (each, each.cells(each.output.detach()), each.cells(gradient))
        for each, gradient in zip(layers, gradients, strict=True)
        if gradient is not None
    ]
    # The tokens after the last attention layer are no longer used where a class token is read.
    maps = [entry for entry in maps if bool(entry[2].any())]
    if layer is not None:
        maps = [_named(layer, maps)]
    if not maps:
        raise UserError("Grad-CAM: the class depends on no map of the image in this network")
    finest = max(min(each.grid) for each, _, _ in maps)
    chosen, features, gradient = next(
        entry for entry in reversed(maps) if min(entry[0].grid) >= min(LEAST, finest)
    )
    heat = (features * gradient.mean(dim=(0, 1))).sum(dim=2).relu()
    if (highest := float(heat.max())) > 0:
        heat = heat / highest
    return CamMap(
        logits=logits[0].detach().numpy(), heat=heat.float().numpy(), layer=chosen.names[-1]
    )


def _named(name: str, maps: list[_Mapped]) -> _Mapped:
    """Returns the map of the layer ``name``; of a layer that is run several times the last."""
    for entry in reversed(maps):
        if name in entry[0].names:
            return entry
    names = list(dict.fromkeys(name for each, _, _ in reversed(maps) for name in each.names))
    near = closest(name, names)
    if not near.startswith("did you mean"):
        near = f"the last of {len(names):,} are {', '.join(names[:_SHOWN])}"
    raise UserError(
        f"--layer {name}: no layer of this name answers a map of the image that the class depends "
        f"on; {near}; --layer list shows all"
    )


def layers_of(network: nn.Module, pixels: Pixels) -> dict[str, tuple[int, int]]:
    """Returns the layers that answer a map of an image, in their order, with rows and columns.

    Args:
        network: as for :func:`grad_cam`.
        pixels: likewise.
    """
    _, layers = _run(network, pixels)
    return {name: each.grid for each in layers for name in each.names}


def _run(network: nn.Module, pixels: Pixels) -> tuple[torch.Tensor, list[_Layer]]:
    """Returns the logits (1, C), and all layers that answer a map of the image, in their order."""
    layers: dict[int, _Layer] = {}
    size = pixels.shape[:2]

    def keep(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        if not isinstance(output, torch.Tensor) or not output.requires_grad:
            return
        if isinstance(module, nn.Dropout | nn.Identity):
            return  # it answers what it gets, such as the matrix of an attention
        if output.ndim == 3 and (not inputs or output.shape != getattr(inputs[0], "shape", None)):
            return  # no tokens of the network, such as queries, keys and values in one
        if form := _form(tuple(output.shape), (size[0], size[1])):
            layers.setdefault(id(output), _Layer([], output, *form)).names.append(name)

    handles = [
        module.register_forward_hook(partial(keep, name.removeprefix("backbone.")))
        for name, module in network.named_modules()
        if name
    ]
    try:
        with torch.enable_grad():
            logits: torch.Tensor = network(torch.tensor(pixels[None]))
    finally:
        for handle in handles:
            handle.remove()
    return logits, list(layers.values())


def _form(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[str, tuple[int, int]] | None:
    """Returns the order of the axes and the grid of a map of an image of ``size``, else None."""
    if shape[0] != 1:  # such as the windows of Swin
        return None
    if len(shape) == 4:
        for order, grid in (("NCHW", shape[2:]), ("NHWC", shape[1:3])):
            if _covers((grid[0], grid[1]), size):
                return order, (grid[0], grid[1])
    if len(shape) == 3:
        for extra in range(min(_EXTRA_TOKENS + 1, shape[1])):  # a class token may stand alone
            cells = shape[1] - extra
            height = max(1, round((cells * size[0] / size[1]) ** 0.5))
            if cells % height == 0 and _covers((height, cells // height), size):
                return "NLC", (height, cells // height)
    return None


def _covers(grid: tuple[int, int], size: tuple[int, int]) -> bool:
    """Returns whether a grid of several cells has the proportions of an image, up to rounding."""
    (rows, columns), (height, width) = grid, size
    if min(grid) < 2 or rows > height or columns > width:
        return False
    return abs(rows * width - columns * height) < max(size)
