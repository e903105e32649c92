"""A trained network that another one learns from."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from core.errors import UserError
from models.classifier import Classifier
from models.input_size import check_input_size
from models.weights import imagenet_classifier, load_imagenet_weights
from training.checkpoint import checkpoint_path, load_checkpoint


def load_teacher(teacher: str, labels: tuple[str, ...], sizes: Iterable[int]) -> Classifier:
    """Returns a frozen network in evaluation mode that tells ``labels`` apart.

    Args:
        teacher: the folder of a finished run, or a registry name, for its ImageNet weights.
        labels: the student's classes, which must be the teacher's.
        sizes: sides in pixels of the images it will be shown.

    Raises:
        UserError: there is no such network or run, or it knows other classes or takes other images.
    """
    if Path(teacher).is_dir():
        checkpoint = load_checkpoint(checkpoint_path(Path(teacher)))
        known, network, model = checkpoint.labels, checkpoint.network(), checkpoint.model
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
    """The loss against the labels plus T^2 times the one against the teacher's softened answers.

    Source: arXiv 1812.01187, Section 5.3; the teacher is held outside the module tree, so that
    its weights are neither saved nor trained.
    """

    def __init__(self, teacher: Classifier, temperature: float, hard: nn.Module) -> None:
        super().__init__()
        self._teacher = [teacher]
        self._temperature = temperature
        self._hard = hard

    def forward(
        self, logits: torch.Tensor, targets: torch.Tensor, pixels: torch.Tensor
    ) -> torch.Tensor:
        """Returns the mean loss of a batch: logits (N, C), targets, and the pixels behind them."""
        with torch.no_grad():
            asked = self._teacher[0].to(pixels.device)(pixels)
        soft = functional.cross_entropy(
            logits / self._temperature, (asked / self._temperature).softmax(dim=1)
        )
        loss: torch.Tensor = self._hard(logits, targets) + self._temperature**2 * soft
        return loss
