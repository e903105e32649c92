"""Networks of a training run: the initial one, and a teacher for distillation."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from core.errors import UserError
from models.classifier import Classifier
from models.imagenet import ImageNetWeights, WeightsUnavailable
from models.input_size import check_input_size
from models.registry import build_model
from models.residual import zero_last_gammas
from models.weights import imagenet_classifier, load_imagenet_weights
from training.checkpoint import checkpoint_path, load_checkpoint
from training.recipe import Recipe


def first_network(model: str, labels: tuple[str, ...], recipe: Recipe) -> tuple[Classifier, str]:
    """Returns the initial network of a run, and the origin of its weights.

    It maps uint8 (N, H, W, 3) to logits (N, len(labels)).

    Raises:
        UserError: the recipe needs ImageNet weights that are not available, or has an option that
            the network does not support.
    """
    if recipe.qat:
        raise UserError("quantization-aware fine-tuning is for training alone; use another recipe")
    if recipe.weights == "imagenet":
        weights = published_weights(model)
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


def published_weights(model: str) -> ImageNetWeights:
    """Returns the ImageNet weights from which a recipe starts; UserError if there are none."""
    try:
        return load_imagenet_weights(model)
    except WeightsUnavailable as error:
        raise UserError(f"{error}; or --recipe-name scratch, without weights") from None


def load_teacher(teacher: str, labels: tuple[str, ...], sizes: Iterable[int]) -> nn.Module:
    """Returns a frozen network in evaluation mode that classifies images into ``labels``.

    Args:
        teacher: the folder of a finished run, or a registry name, for its ImageNet weights.
        labels: the student's classes, which must be the teacher's.
        sizes: sides in pixels of the images it will get.

    Raises:
        UserError: unknown network or run, other classes, or image sizes it does not accept.
    """
    if Path(teacher).is_dir():
        checkpoint = load_checkpoint(checkpoint_path(Path(teacher)))
        known, model = checkpoint.labels, checkpoint.model
        network: nn.Module = checkpoint.network(calibrated=False)
    else:
        weights = load_imagenet_weights(teacher)
        known, network, model = weights.labels, imagenet_classifier(teacher, weights), teacher
    if known != labels:
        raise UserError(
            f"teacher {teacher} knows {len(known)} classes ({known[0]}, ...), the data has "
            f"{len(labels)} ({labels[0]}, ...): train a teacher on this data and give its folder"
        )
    check_input_size(model, *sizes, classes=len(labels))
    return network.eval().requires_grad_(False)


class DistillationLoss(nn.Module):
    """The loss on the labels plus T^2 times the loss on the teacher's softened outputs.

    Source: arXiv 1812.01187, Section 5.3. The teacher is not a submodule, so that its weights are
    neither saved nor trained.
    """

    def __init__(self, teacher: nn.Module, temperature: float, hard: nn.Module) -> None:
        super().__init__()
        self._teacher = [teacher]
        self._temperature = temperature
        self._hard = hard

    def forward(
        self, logits: torch.Tensor, targets: torch.Tensor, pixels: torch.Tensor
    ) -> torch.Tensor:
        """Returns the mean loss of a batch, given logits (N, C), targets and pixels."""
        with torch.no_grad():
            asked = self._teacher[0].to(pixels.device)(pixels)
        soft = functional.cross_entropy(
            logits / self._temperature, (asked / self._temperature).softmax(dim=1)
        )
        loss: torch.Tensor = self._hard(logits, targets) + self._temperature**2 * soft
        return loss
