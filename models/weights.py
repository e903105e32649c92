"""Published ImageNet weights, and random weights that are suitable for timing."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from core.image_size import Size
from core.lazy import resolve
from core.names import canonical_name
from models.classifier import Classifier
from models.imagenet import ImageNetWeights, WeightsUnavailable
from models.meta import build_on_meta
from models.registry import TIMM, build_model, find_model

NEARLY_ZERO = 1e-2


def load_imagenet_weights(name: str) -> ImageNetWeights:
    """Returns the published ImageNet weights of network ``name``.

    Raises:
        WeightsUnavailable: there are none, or they can be neither found nor downloaded.
        UserError: unknown network.
    """
    get = find_model(name).imagenet
    if get is None:
        raise WeightsUnavailable(
            f"{canonical_name(name)}: nobody published ImageNet weights for it"
        )
    return get()


def imagenet_classifier(
    name: str,
    weights: ImageNetWeights,
    labels: Sequence[str] | None = None,
    size: Size | None = None,
) -> Classifier:
    """Returns network ``name`` with published weights: uint8 (N, H, W, channels) -> logits.

    Args:
        name: registry name.
        weights: from :func:`load_imagenet_weights`; their preprocessing says the channels.
        labels: class names; None for those of the weights. With other labels the last layer is
            zero, so that all classes begin with the same score and no random gradient reaches the
            other layers (ViT, arXiv 2010.11929, Section 3.2).
        size: of the images, as in :func:`models.registry.build_model`; position embeddings
            are resampled as timm does.

    Raises:
        WeightsUnavailable: the weights have no classes and ``labels`` is None, or they do not fit.
    """
    if labels is None and not weights.labels:
        raise WeightsUnavailable(f"{name}: its published weights end in features, not in classes")
    state_dict = dict(weights.state_dict)
    classes = len(weights.labels if labels is None else labels)
    channels = weights.preprocess.channels
    backbone = build_model(name, num_classes=classes, size=size, channels=channels)
    if name.startswith(TIMM) and size not in (None, find_model(name).native_size):
        convert = resolve("models.timm_nets:timm_converted")
        state_dict = convert(name.removeprefix(TIMM), state_dict, backbone) or state_dict
    if labels is not None and tuple(labels) != weights.labels:
        wider = build_on_meta(name, num_classes=classes + 1, channels=channels).state_dict()
        fresh = backbone.state_dict()
        head = [key for key in fresh if fresh[key].shape != wider[key].shape]
        state_dict |= {key: torch.zeros_like(fresh[key]) for key in head}
    try:
        backbone.load_state_dict(state_dict)
    except RuntimeError as error:
        reason = textwrap.shorten(str(error), 300)
        raise WeightsUnavailable(
            f"{name}: its published weights do not fit a network of {classes} classes"
            f"{f' for images of {size} pixels' if size else ''} ({reason})"
        ) from None
    return Classifier(backbone, mean=weights.mean, std=weights.std)


def open_branches(network: nn.Module) -> None:
    """Randomises weights of an untrained network that are initialised to a constant near zero.

    Those are gains of residual branches (0, or LayerScale's 1e-6) and some last layers. They hide
    whatever they multiply from the logits, so a graph that is wrong there would agree with torch.
    """
    for name, parameter in network.named_parameters():
        low, high = (float(end) for end in parameter.detach().aminmax())
        if low == high and abs(low) < NEARLY_ZERO and not name.endswith("bias"):
            if parameter.numel() == max(parameter.shape):  # one gain per channel
                nn.init.ones_(parameter)
            else:
                nn.init.normal_(parameter, std=0.02)


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """Returns the layers of ``network`` with running batch statistics."""
    layers = (layer for layer in network.modules() if isinstance(layer, _BatchNorm))
    return [layer for layer in layers if layer.track_running_stats]


@torch.no_grad()
def settle_batch_norm(network: nn.Module, batches: Iterable[torch.Tensor]) -> None:
    """Sets a network's batch norm statistics to their mean over ``batches``.

    With untrained statistics (mean 0, variance 1) activations vanish layer by layer: logits of
    1e-9, denormal numbers that slow a CPU down, and ranges that int8 calibration cannot use. Unlike
    in ``torch.optim.swa_utils.update_bn``, all layers but batch norm are in evaluation mode, as
    dropout and stochastic depth would change the statistics.

    Args:
        network: uint8 (N, H, W, 3) -> logits; left in evaluation mode.
        batches: uint8 (N, H, W, 3) each; at least one.
    """
    network.eval()
    layers = batch_norms(network)
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # makes torch compute the mean over all batches
        layer.training = True
    for pixels in batches:
        network(pixels)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
        layer.training = False
