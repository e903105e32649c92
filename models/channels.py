"""Networks for images of other channels than three."""

from __future__ import annotations

from torch import nn

from core.errors import UserError
from core.lazy import resolve
from models.registry import TIMM
from models.saved_weights import Tensors


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


def adapted(model: str, tensors: Tensors, expected: Tensors, channels: int) -> Tensors:
    """Returns weights for RGB whose first convolution takes images of ``channels`` instead.

    timm does so where it loads weights for RGB into a network for other images: for grey ones the
    weights of the three channels are added up. Weights of other networks stay as they are.
    """
    if channels == 3 or not model.startswith(TIMM):
        return tensors
    adapt = resolve("timm.models._manipulate:adapt_input_conv")
    found = dict(tensors)
    for key, stem in expected.items():
        if key in tensors and stem.dim() == 4 and stem.shape[1] == channels:
            outputs, _, *kernel = stem.shape
            if tensors[key].shape == (outputs, 3, *kernel) and tensors[key].is_floating_point():
                found[key] = adapt(channels, tensors[key])
    return found
