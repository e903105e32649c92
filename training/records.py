"""The records of a training run: figures of each epoch, and the facts its README tells."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch:
    """One pass over the training images, and the held-out ones after it.

    Attributes:
        epoch: counted from 1.
        loss: mean over the training images.
        train_top1: share of the augmented training images classified correctly, in [0, 1].
        val_loss: mean over the held-out images.
        val_top1: share of the held-out images classified correctly, in [0, 1].
        learning_rate: of the last step.
        images_per_second: training images, loading and augmentation included.
        train_seconds: of the training images.
        val_seconds: of validation, with loading and the statistics of batch norm.
    """

    epoch: int
    loss: float
    train_top1: float
    val_loss: float
    val_top1: float
    learning_rate: float
    images_per_second: float
    train_seconds: float
    val_seconds: float

    @property
    def seconds(self) -> float:
        """Returns the seconds of training and validation together."""
        return self.train_seconds + self.val_seconds


def to_csv(epochs: Sequence[Epoch]) -> bytes:
    """Returns a line of names, and a line per epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Epoch)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(epoch) for epoch in epochs)
    return text.getvalue().encode()


class Answers(NamedTuple):
    """How many of some images were classified correctly."""

    right: int
    images: int

    @property
    def top1(self) -> float:
        """Returns the share classified correctly, in [0, 1]."""
        return self.right / self.images


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """The facts of a training run that its README shows.

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
