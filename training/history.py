"""The figures of each epoch of a run."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch:
    """One pass over the training images, and the held-out ones after it.

    Attributes:
        epoch: counted from 1.
        loss: mean over the training images.
        train_top1: share of the training images, as augmented, that were right, in [0, 1].
        val_loss: mean over the held-out images.
        val_top1: share of the held-out images that were right, in [0, 1].
        learning_rate: of the last step.
        images_per_second: training images, loading and augmentation included.
        train_seconds: of the training images.
        val_seconds: of the held-out images, loading included, and of those that statistics of
            batch norm are estimated on.
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
        """Of training and held-out images together."""
        return self.train_seconds + self.val_seconds


def to_csv(epochs: Sequence[Epoch]) -> bytes:
    """Returns a line of names, and a line per epoch."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(Epoch)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(epoch) for epoch in epochs)
    return text.getvalue().encode()
