"""Networks for images of other channels than three, and weights for RGB in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import nn

from core.errors import UserError
from core.preprocess import MODES
from models.imagenet import ImageNetWeights, PublishedForm
from models.saved_weights import Tensors
from models.weight_places import on_meta

_COLOURS = ("red", "green", "blue")


class Adapted(NamedTuple):
    """Published weights for RGB in a network for other images."""

    weights: ImageNetWeights
    assumed: tuple[str, ...]  # sentences that say how they were adapted


def replace_stem(network: nn.Module, name: str, channels: int) -> None:
    """Replaces the first convolution of ``network`` by one of ``channels`` with random weights.

    Raises:
        UserError: its first convolution is none of RGB.
    """
    places = (key for key, layer in network.named_modules() if isinstance(layer, nn.Conv2d))
    place = next(places, "")
    stem = network.get_submodule(place)
    if not isinstance(stem, nn.Conv2d) or stem.in_channels != 3 or stem.groups != 1:
        raise UserError(
            f"{name} cannot be built for images of {channels} channels: it does not begin with a "
            "convolution of three"
        )
    assert isinstance(stem.padding, tuple)
    made = nn.Conv2d(
        channels,
        stem.out_channels,
        stem.kernel_size,  # type: ignore[arg-type]
        stem.stride,  # type: ignore[arg-type]
        stem.padding,  # type: ignore[arg-type]
        stem.dilation,  # type: ignore[arg-type]
        bias=stem.bias is not None,
        padding_mode=stem.padding_mode,
    )
    network.set_submodule(place, made)


def adapted(tensors: Tensors, expected: Tensors, channels: int) -> Tensors:
    """Returns weights for RGB whose first convolution takes images of ``channels`` instead.

    It is what timm does (``adapt_input_conv``): for grey images the weights of the three colours
    are added up; for others they are repeated in their order and scaled by 3 / ``channels``.

    Args:
        tensors: weights, by key.
        expected: those of the network for such images, by key; only their shapes are used.
        channels: of the images.
    """
    if channels == 3:
        return tensors
    found = dict(tensors)
    for key in expected.keys() & tensors.keys():
        stem, weight = expected[key], tensors[key]
        dense = weight.is_floating_point() and weight.layout == torch.strided
        if dense and stem.dim() == weight.dim() == 4:
            outputs, inputs, *kernel = weight.shape
            groups, odd = divmod(inputs, 3)  # several where pixels were moved into the channels
            if not odd and stem.shape == (outputs, groups * channels, *kernel):
                found[key] = _adapted_stem(weight, channels)
    return found


def adapted_form(form: PublishedForm, channels: int) -> PublishedForm:
    """Returns preprocessing for RGB as that of images of ``channels``, like :func:`adapted`.

    Mean and standard deviation of grey are the average of the three colours'; each of two or four
    channels has those of the colour whose weights it has.
    """

    def each(values: Sequence[float]) -> tuple[float, ...]:
        if channels == 1:
            return (sum(values) / len(values),)
        return tuple(values[index] for index in _colours(channels))

    mean, preprocess = each(form.mean), form.preprocess
    fill = tuple(round(255 * value) for value in mean) if any(preprocess.fill) else (0,) * channels
    return PublishedForm(replace(preprocess, channels=channels, fill=fill), mean, each(form.std))


def adapted_imagenet(name: str, weights: ImageNetWeights, channels: int) -> Adapted:
    """Returns published weights of network ``name`` for RGB, for images of ``channels``.

    Raises:
        UserError: the network cannot be built for so many, or its weights are not for RGB.
    """
    if channels == (own := weights.preprocess.channels):
        return Adapted(weights, ())
    if own != 3:
        raise UserError(f"{name}: its published weights are for images of {own} channels")
    form = PublishedForm(weights.preprocess, weights.mean, weights.std)
    preprocess, mean, std = adapted_form(form, channels)
    expected = on_meta(name, 1, channels=channels)
    state_dict = adapted(weights.state_dict, expected, channels)
    values = (" ".join(f"{value:.3g}" for value in each) for each in (mean, std))
    return Adapted(
        replace(weights, state_dict=state_dict, preprocess=preprocess, mean=mean, std=std),
        (
            adaptation(channels),
            "mean {} and std {} are the publisher's, {}".format(*values, normalisation(channels)),
        ),
    )


def adaptation(channels: int) -> str:
    """Returns in words what :func:`adapted` does to weights for RGB."""
    if channels == 1:
        return "weights for RGB take grey images, as in timm: those of the three colours are summed"
    colours = ", ".join(_COLOURS[index] for index in _colours(channels))
    return (
        f"weights for RGB take images of {channels} channels ({MODES[channels - 1]}), as in timm: "
        f"those of {colours}, times 3/{channels}"
    )


def normalisation(channels: int) -> str:
    """Returns in words what :func:`adapted_form` does to mean and standard deviation of RGB."""
    return "averaged over the colours" if channels == 1 else "of the same colours"


def _colours(channels: int) -> list[int]:
    """Returns the index of the colour whose weights each of several channels takes."""
    return [index % 3 for index in range(channels)]


def _adapted_stem(weight: torch.Tensor, channels: int) -> torch.Tensor:
    outputs, inputs, *kernel = weight.shape
    colours = weight.float().reshape(outputs, inputs // 3, 3, *kernel)  # float16 is too coarse
    if channels == 1:
        return colours.sum(dim=2)
    return colours[:, :, _colours(channels)].flatten(1, 2) * (3 / channels)
