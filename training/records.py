"""The records of a training run: figures of each epoch, and facts for its README."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

from core.task import Task
from training.summary.calibration import Calibration
from training.summary.label_figures import LabelFigures
from training.summary.mistakes import Mistake
from training.thresholds import Abstention

TOP = 5  # k of top-5, which is computed for more than MANY classes
MANY = 10


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch:
    """Figures of one pass over the training images and the validation after it.

    Attributes:
        epoch: counted from 1.
        loss: mean over the training images.
        train_top1: fraction of the augmented training images classified correctly, in [0, 1]; of
            several labels, each of them by a score above 0.5 or below.
        val_loss: mean over the held-out images.
        val_top1: fraction of the held-out images classified correctly, in [0, 1].
        val_macro_f1: mean of the F1 of the classes with held-out images, in [0, 1]. This and the
            next are None in records of earlier versions.
        val_balanced_accuracy: mean of their top-1.
        val_top5: fraction of the held-out images whose class is among the five most likely; None
            for ten classes or fewer.
        val_map: mean average precision over the labels, if an image may have several; else None.
        val_micro_map: average precision of all pairs of image and label together, likewise.
        learning_rate: learning rate of the last step.
        images_per_second: training images per second, including loading and augmentation.
        train_seconds: duration of training.
        val_seconds: duration of validation, including loading and batch norm statistics.
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
    val_macro_f1: float | None = None
    val_balanced_accuracy: float | None = None
    val_top5: float | None = None
    val_map: float | None = None
    val_micro_map: float | None = None

    @property
    def seconds(self) -> float:
        """Returns the seconds of training and validation together."""
        return self.train_seconds + self.val_seconds


class Monitor(NamedTuple):
    """A figure of an epoch by which the best one can be chosen."""

    field: str
    name: str
    higher: bool  # whether a higher figure is better

    def better(self, epoch: Epoch) -> float:
        """Returns what is higher for a better epoch."""
        value = float(getattr(epoch, self.field))
        return value if self.higher else -value


MONITORS = {
    "top1": Monitor("val_top1", "held-out top-1", True),
    "macro_f1": Monitor("val_macro_f1", "held-out macro-F1", True),
    "balanced_accuracy": Monitor("val_balanced_accuracy", "held-out balanced accuracy", True),
    "val_loss": Monitor("val_loss", "held-out loss", False),
    "map": Monitor("val_map", "held-out mAP", True),
}
"""The values of a recipe's ``monitor``, except ``none``."""
MONITORS_OF: dict[Task, tuple[str, ...]] = {
    "single": ("top1", "macro_f1", "balanced_accuracy", "val_loss"),
    "multi": ("map", "macro_f1", "val_loss"),
}
"""Those of a task; the first is the usual one."""


def to_csv(epochs: Sequence[Epoch]) -> bytes:
    """Returns a CSV file with a header and a line per epoch, without figures that none has."""
    rows = [asdict(epoch) for epoch in epochs]
    names = [each.name for each in fields(Epoch) if any(row[each.name] is not None for row in rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, names, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


class Answers(NamedTuple):
    """How many of some images were classified correctly."""

    right: int
    images: int

    @property
    def top1(self) -> float:
        """Returns the fraction classified correctly, in [0, 1]."""
        return self.right / self.images


@dataclass(frozen=True, kw_only=True, slots=True)
class Abstaining:
    """When the most likely class is no answer, and what that does.

    Attributes:
        found: the threshold, with its figures on held-out images; or the reason why there is none.
        tested: right ones of the answered test images; None without test images.
        test_images: number of test images.
    """

    found: Abstention | str
    tested: Answers | None = None
    test_images: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class SeveralLabels:
    """Figures of the kept weights, where an image may have several labels.

    Attributes:
        held_out: of the held-out images, by which the thresholds were chosen.
        tested: of the test images; None without any.
        never: labels that no threshold has the wanted precision for, so that they are never given.
    """

    held_out: LabelFigures
    tested: LabelFigures | None = None
    never: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """The facts of a training run that its README shows.

    Attributes:
        model: registry name of the network.
        data: name of the data set.
        labels: class names, in the order of the logits.
        recipe_name: name of the recipe with the defaults.
        recipe: all fields of the recipe.
        command: command line that repeats the run.
        origin: origin of the initial weights: ``random``, ``torchvision IMAGENET1K_V2``.
        train_images: number of training images.
        val_images: number of held-out images that could be read.
        kept_epoch: epoch whose weights were kept, counted from 1.
        chosen_by: name in MONITORS of the figure by which it was chosen; None for the last epoch.
        parameters: number of parameters of the network.
        device: device of the training: ``Intel Xeon, 2 threads``.
        precision: precision of the training.
        versions: versions of packages, by name.
        date: date of its end, ISO 8601.
        seconds: duration of the training; None if not measured.
        images_per_second: median over epochs of training images per second, or None.
        tested: result of the kept weights on the test images; None if the data has none.
        calibration: temperature of the logits and what it does; None if not measured.
        mistakes: the wrong answers to held-out images with the highest scores.
        weights_top1: held-out top-1 of the unaveraged weights of the last epoch, if averaged ones
            were kept; None otherwise, or if not measured.
        data_path: path of the folder of images, if ``data`` is only its name.
        abstaining: when the most likely class is no answer; None if that was not asked for.
        several: figures if an image may have several labels; None if it has one class.
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
    calibration: Calibration | None = None
    mistakes: tuple[Mistake, ...] = ()
    weights_top1: float | None = None
    data_path: str | None = None
    chosen_by: str | None = None
    abstaining: Abstaining | None = None
    several: SeveralLabels | None = None
