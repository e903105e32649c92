"""Evaluates a trained network on the test images, which no epoch was judged by."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from core.errors import UserError
from models.classifier import Classifier
from training.data import Sample
from training.loader import Report, plain_batches, read
from training.recipe import Recipe
from training.summary.facts import Answers


@torch.inference_mode()
def evaluate(
    network: Classifier, samples: Sequence[Sample], recipe: Recipe, *, report: Report | None = None
) -> Answers:
    """Returns how many of ``samples`` a network in evaluation mode names rightly.

    Args:
        network: on the device to compute on.
        samples: labelled images.
        recipe: says how pixels are made of them, and how many at once.
        report: gets the error of each image that cannot be read; left out, it is raised.

    Raises:
        UserError: no image can be read.
    """
    device = next(network.parameters()).device
    right = images = 0
    for batch in plain_batches(samples, recipe):
        if len(read(batch, report).labels):
            answers = network(batch.pixels.to(device)).argmax(dim=1).cpu()
            right += int((answers == batch.labels).sum())
            images += len(batch.labels)
    if not images:
        raise UserError("no image of the part to test on can be read")
    return Answers(right, images)
