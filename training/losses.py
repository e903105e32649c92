"""The loss on the labels: cross-entropy, with weights of classes, focal, or both.

If an image may have several labels, it is the binary cross-entropy of each.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from training.recipe import Recipe

_LEAST = 1e-6  # of 1 - p, as its power has no finite gradient at 0 for exponents below 1


def make_loss(recipe: Recipe, images: Sequence[int]) -> nn.Module:
    """Returns the mean loss of a batch, from logits (N, C) and class indices (N,) or shares (N, C).

    Args:
        recipe: its label smoothing, class weights and focal gamma.
        images: number of training images of each class.
    """
    if recipe.class_weights == "none" and not recipe.focal_gamma:
        return nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
    weights = class_weights(recipe, images)
    return WeightedFocalLoss(weights, recipe.focal_gamma, recipe.label_smoothing)


def make_multi_loss(recipe: Recipe, images: Sequence[int], total: int) -> nn.Module:
    """Returns the mean loss of a batch with any number of labels, from logits (N, C) and shares.

    Args:
        recipe: its label smoothing, class weights and focal gamma.
        images: number of training images with each label.
        total: number of training images.
    """
    with_label = np.asarray(images)
    pairs = [(total - count, count) for count in with_label.tolist()]
    weights = np.ones((len(pairs), 2))
    if recipe.class_weights != "none":
        weights = np.array([class_weights(recipe, pair) for pair in pairs])
    return BinaryLoss(weights, recipe.focal_gamma, recipe.label_smoothing)


def class_weights(recipe: Recipe, images: Sequence[int]) -> npt.NDArray[np.float64]:
    """Returns the weight (C,) of the loss of each class's images; its mean over images is 1.

    So the learning rate keeps its meaning. With n images of a class, a weight is proportional to
    1 / n if balanced, and to (1 - b) / (1 - b^n), the inverse of the effective number of samples,
    if effective (Cui et al., arXiv 1901.05555, Section 3, with b the recipe's effective_beta).
    """
    counts = np.asarray(images, dtype=np.float64)
    present = counts > 0
    weights = np.zeros_like(counts)
    if recipe.class_weights == "none":
        weights[present] = 1
    elif recipe.class_weights == "balanced":
        weights[present] = 1 / counts[present]
    else:
        beta = recipe.effective_beta
        weights[present] = (1 - beta) / (1 - beta ** counts[present])
    weights *= counts.sum() / (weights @ counts)
    return weights


class WeightedFocalLoss(nn.Module):
    """Focal loss of a softmax, with a weight for each class.

    The loss of an image of class c is w_c (1 - p_c)^gamma times its cross-entropy, which is with
    label smoothing if that is set; p_c is the network's score of c (Lin et al., arXiv 1708.02002,
    Section 3). The factor depends on the class itself and not on the smoothed target: for a class
    that is not c, 1 - p is near 1, and the smoothed rest would outweigh what focal loss is for. An
    image that mixup or cutmix made of two has the sum of the losses of both classes by their
    shares.

    Args:
        weights: (C,) weight of each class.
        gamma: focal exponent, at least 0; 0 for the plain cross-entropy.
        smoothing: fraction of the target spread evenly over all classes.
    """

    weights: torch.Tensor

    def __init__(self, weights: npt.NDArray[np.float64], gamma: float, smoothing: float) -> None:
        super().__init__()
        # Not in checkpoints, as it follows from recipe and data.
        self.register_buffer("weights", torch.from_numpy(weights).float(), persistent=False)
        self._gamma = gamma
        self._smoothing = smoothing

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Returns the mean loss of logits (N, C), given class indices (N,) or shares (N, C)."""
        logs = logits.float().log_softmax(dim=1)
        if targets.ndim == 1:
            targets = functional.one_hot(targets, logs.shape[1])
        entropies = (self._smoothing - 1) * logs - self._smoothing * logs.mean(dim=1, keepdim=True)
        focus = (1 - logs.exp()).clamp(min=_LEAST) ** self._gamma
        return (targets * self.weights * focus * entropies).sum(dim=1).mean()


class BinaryLoss(nn.Module):
    """Focal loss of a sigmoid for each label by itself, with weights for its two answers.

    The loss of a label is w (1 - p)^gamma times its binary cross-entropy, where p is the
    probability that the network gives to the right one of its two answers, and w the weight of
    that answer (Lin et al., arXiv 1708.02002, Section 3). Label smoothing moves its target by half
    of the fraction towards the other answer. An image that mixup or cutmix made of two has the sum
    of both losses by their shares.

    Args:
        weights: (C, 2) weights of not having and of having each label.
        gamma: focal exponent, at least 0; 0 for the plain binary cross-entropy.
        smoothing: fraction of the target spread evenly over both answers.
    """

    weights: torch.Tensor

    def __init__(self, weights: npt.NDArray[np.float64], gamma: float, smoothing: float) -> None:
        super().__init__()
        self.register_buffer("weights", torch.from_numpy(weights).float(), persistent=False)
        self._gamma = gamma
        self._smoothing = smoothing

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Returns the mean over images and labels, given shares of having each label (N, C)."""
        logits, shares = logits.float(), targets.float()
        losses = torch.zeros_like(logits)
        for answer, share in enumerate((1 - shares, shares)):
            sign = 1 if answer else -1
            right = functional.logsigmoid(sign * logits)
            wrong = functional.logsigmoid(-sign * logits)
            half = self._smoothing / 2
            entropies = -(1 - half) * right - half * wrong
            focus = wrong.exp().clamp(min=_LEAST) ** self._gamma
            losses = losses + share * self.weights[:, answer] * focus * entropies
        return losses.mean()
