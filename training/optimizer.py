"""The optimiser of a recipe, and its learning rate schedule."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from models.classifier import Classifier
from training.recipe import Recipe
from training.stages import find_stages

MOMENTUM = 0.9


def make_optimizer(
    network: nn.Module, recipe: Recipe, *, fused: bool = True
) -> torch.optim.Optimizer:
    """Returns the optimiser of ``recipe`` over all parameters of ``network``.

    ``fused`` uses torch's fused implementation, which exists for all but RMSprop.

    Unless ``decay_vectors`` is set, biases and the gains of norms have no weight decay (Bag of
    Tricks, arXiv 1812.01187, Section 3.1). With ``layer_decay``, the learning rate of each stage is
    so many times that of the next one; the first group has that of the recipe.
    """
    rate = recipe.learning_rate
    groups: list[dict[str, Any]] = []
    for place, parameters in enumerate(_stages(network, recipe)):
        matrices = [p for p in parameters if p.ndim > 1 or recipe.decay_vectors]
        vectors = [p for p in parameters if p.ndim <= 1 and not recipe.decay_vectors]
        for members, decay in ((matrices, recipe.weight_decay), (vectors, 0.0)):
            if members:
                scaled = rate * recipe.layer_decay**place
                groups.append({"params": members, "weight_decay": decay, "lr": scaled})
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, rate, fused=fused)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(groups, rate, fused=fused)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, rate, momentum=MOMENTUM, nesterov=True, fused=fused)
    # TensorFlow, of which recipes have it, adds epsilon inside the root, torch outside.
    epsilon = math.sqrt(recipe.rmsprop_epsilon)
    return torch.optim.RMSprop(groups, rate, alpha=0.9, momentum=MOMENTUM, eps=epsilon)


def _stages(network: nn.Module, recipe: Recipe) -> list[list[nn.Parameter]]:
    """Returns the parameters of each stage, the last one first; all as one if rates are equal."""
    if recipe.layer_decay == 1:
        return [list(network.parameters())]
    assert isinstance(network, Classifier)
    return find_stages(network, recipe.crop)[::-1]


def rate_factor(recipe: Recipe, step: int, steps: int) -> float:
    """Returns the factor in (0, 1] on the learning rate in ``step``, from 0, of ``steps``.

    It rises linearly over the fraction ``warmup`` of the steps (Bag of Tricks, Section 3.1), then
    follows the schedule of the recipe.
    """
    rising = int(recipe.warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    if recipe.schedule == "exponential":
        epoch = step * recipe.epochs / steps
        return float(recipe.decay_rate ** math.floor(epoch / recipe.decay_epochs))
    share = (step - rising) / max(1, steps - rising)
    if recipe.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * share))
    return 1 - share if recipe.schedule == "linear" else 1.0
