"""The network a run starts from."""

from __future__ import annotations

import torch

from core.errors import UserError
from models.classifier import Classifier
from models.imagenet import WeightsUnavailable
from models.registry import build_model
from models.residual import zero_last_gammas
from models.weights import imagenet_classifier, load_imagenet_weights
from training.recipe import Recipe


def first_network(model: str, labels: tuple[str, ...], recipe: Recipe) -> tuple[Classifier, str]:
    """Returns the network a run starts from, and where its weights come from.

    It takes uint8 (N, H, W, 3) and gives logits (N, len(labels)).

    Raises:
        UserError: ImageNet weights are asked for and cannot be had, or an option of the recipe
            does not fit the network.
    """
    if recipe.weights == "imagenet":
        try:
            weights = load_imagenet_weights(model)
        except WeightsUnavailable as error:
            raise UserError(f"{error}; or --recipe-name scratch, without weights") from None
        network, origin = imagenet_classifier(model, weights, labels), weights.origin
    else:
        origin = f"random, seed {recipe.seed}"
        network = Classifier(build_model(model, num_classes=len(labels)))
    if recipe.zero_gamma:
        zero_last_gammas(network)
    if recipe.bn_momentum is not None:
        for layer in network.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = recipe.bn_momentum
    if recipe.channels_last:
        network.to(memory_format=torch.channels_last)
    if recipe.compile:
        network.compile()
    return network, origin
