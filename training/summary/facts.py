"""The facts of a training run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple


class Answers(NamedTuple):
    """How many of some images were named rightly."""

    right: int
    images: int

    @property
    def top1(self) -> float:
        """Returns the share named rightly, in [0, 1]."""
        return self.right / self.images


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """What happened in a training run, to be printed.

    Attributes:
        model: registry name of the network.
        data: name of the data set.
        labels: class names, in the order of the logits.
        recipe_name: the recipe its fields started from.
        recipe: every field of the recipe.
        command: the line that repeats the run.
        origin: where the first weights came from: ``random``, ``torchvision IMAGENET1K_V2``.
        train_images: images it learned from.
        val_images: images held out, and read.
        kept_epoch: the epoch whose weights were kept, counted from 1.
        parameters: of the network.
        device: what it was trained on: ``Intel Xeon, 2 threads``.
        precision: of the training arithmetic.
        versions: package to version.
        date: when it ended, ISO 8601.
        seconds: wall clock of the training; None where not measured.
        images_per_second: median over epochs of training images per second, or None.
        tested: what the kept weights answered for images that no epoch was judged by; None where
            the data has no part for them.
        weights_top1: held-out top-1 of the last epoch's weights themselves, where their average is
            kept instead; None where there is none, or it was not measured.
        data_path: the folder of images, where ``data`` is only its name.
    """

    model: str
    data: str
    labels: tuple[str, ...]
    recipe_name: str
    recipe: Mapping[str, Any]
    command: str
    origin: str
    train_images: int
    val_images: int
    kept_epoch: int
    parameters: int
    device: str
    precision: str
    versions: Mapping[str, str]
    date: str
    seconds: float | None = None
    images_per_second: float | None = None
    tested: Answers | None = None
    weights_top1: float | None = None
    data_path: str | None = None
