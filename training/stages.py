"""The stages of a network: its layers from one resolution to the next."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import torch
from torch import nn

from models.classifier import Classifier


@torch.no_grad()
def find_stages(network: Classifier, side: int) -> list[list[nn.Parameter]]:
    """Returns the parameters of each stage, from the first layer to the last.

    A stage is the convolutions whose outputs have the same size, with all layers that follow them;
    the last one is what follows pooling. A branch that pools, as in squeeze-and-excitation, is of
    the stage that it scales. A transformer has one stage, and one of its last layer.

    Args:
        network: the network; it is run once.
        side: side of its images, in pixels.
    """
    calls: list[tuple[nn.Module, int | None]] = []  # in order, with the pixels of what is measured

    def note(layer: nn.Module, _: Any, output: torch.Tensor) -> None:
        pixels = None
        if isinstance(layer, nn.Conv2d):
            pixels = output.shape[-2] * output.shape[-1]
        elif isinstance(layer, nn.Linear) and output.ndim == 2:
            pixels = 1
        calls.append((layer, pixels))

    modes = [(layer, layer.training) for layer in network.modules()]
    own = [layer for layer, _ in modes if next(layer.parameters(recurse=False), None) is not None]
    hooks = [layer.register_forward_hook(note) for layer in own]
    device = next(network.parameters()).device
    try:
        network.eval()
        shape = (1, side, side, network.channels)
        network.forward(torch.zeros(shape, dtype=torch.uint8, device=device))  # not compiled
    finally:
        for hook in hooks:
            hook.remove()
        for layer, mode in modes:
            layer.training = mode
    measured = [pixels for _, pixels in calls if pixels is not None]
    # A later layer with more pixels shows that those before it are of a branch that pools.
    sizes = list(accumulate(reversed(measured), max))[::-1]
    stages: dict[int, list[nn.Parameter]] = {size: [] for size in sizes}
    known: set[nn.Parameter] = set()
    place = -1
    for layer, pixels in calls:
        place += pixels is not None
        for parameter in layer.parameters(recurse=False):
            if parameter not in known:
                known.add(parameter)
                stages[sizes[max(place, 0)]].append(parameter)
    found = [parameters for parameters in stages.values() if parameters]
    found[-1] += [each for each in network.parameters() if each not in known]  # only in training
    return found
