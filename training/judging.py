"""What a validation measures: of one class of an image, or of any number of labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix
from torchmetrics.utilities import dim_zero_cat

from training.data import Combinations, label_sets
from training.records import MANY, TOP
from training.summary.confusion import balanced_accuracy, class_results, macro_f1
from training.summary.label_figures import MIDDLE, expit, label_figures


class Judge(nn.Module):
    """Collects a network's answers to held-out images, over all processes.

    Attributes:
        confusion: int64, of the last validation: see :class:`training.checkpoint.Checkpoint`.
        class_figures: of the last validation, for each label: top-1, or average precision.
    """

    confusion: torch.Tensor
    class_figures: dict[str, float]

    def targets(self, labels: torch.Tensor) -> torch.Tensor:
        """Returns what the loss takes, for indices int64 (N,) of the samples."""
        raise NotImplementedError

    def right(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Returns bool (N,): whether each image is answered correctly, with all its labels."""
        raise NotImplementedError

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        """Adds a batch: logits (N, C) and indices int64 (N,) of the samples."""
        raise NotImplementedError

    def figures(self) -> dict[str, float]:
        """Returns the figures, named as fields of Epoch, and forgets the images."""
        raise NotImplementedError


def make_judge(labels: Sequence[str], combinations: Combinations) -> Judge:
    """Returns the judge of images with one class, or with combinations of labels."""
    return _Several(labels, combinations) if combinations else _One(labels)


class _One(Judge):
    def __init__(self, labels: Sequence[str]) -> None:
        super().__init__()
        self._labels = labels
        self._counts = MulticlassConfusionMatrix(len(labels), validate_args=False)
        self._top5: MulticlassAccuracy | None = None
        if len(labels) > MANY:
            self._top5 = MulticlassAccuracy(
                len(labels), top_k=TOP, average="micro", validate_args=False
            )
        self.confusion = torch.zeros(len(labels), len(labels), dtype=torch.int64)

    def targets(self, labels: torch.Tensor) -> torch.Tensor:
        return labels

    def right(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return logits.argmax(dim=1) == labels

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        self._counts.update(logits.argmax(dim=1), labels)
        if self._top5 is not None:
            self._top5.update(logits, labels)

    def figures(self) -> dict[str, float]:
        self.confusion = self._counts.compute().cpu()
        self._counts.reset()
        results = class_results(self.confusion.numpy(), self._labels)
        self.class_figures = {each.label: each.top1 for each in results if each.top1 is not None}
        found = {
            "val_top1": float(self.confusion.trace() / self.confusion.sum()),
            "val_macro_f1": macro_f1(results),
            "val_balanced_accuracy": balanced_accuracy(results),
        }
        if self._top5 is not None:
            found["val_top5"] = taken(self._top5)
        return found


class _Several(Judge):
    """Answers are all labels with a score above 0.5, before there are thresholds."""

    table: torch.Tensor

    def __init__(self, labels: Sequence[str], combinations: Combinations) -> None:
        super().__init__()
        self._labels = labels
        sets = label_sets(np.arange(len(combinations)), combinations, len(labels))
        # Not in checkpoints, as it follows from the data.
        self.register_buffer("table", torch.from_numpy(sets), persistent=False)
        self._kept = _Kept()
        self.confusion = torch.zeros(len(labels), 2, 2, dtype=torch.int64)

    def targets(self, labels: torch.Tensor) -> torch.Tensor:
        return self.table[labels].float()

    def right(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return ((logits > 0) == self.table[labels]).all(dim=1)

    def update(self, logits: torch.Tensor, labels: torch.Tensor) -> None:
        self._kept.update(logits, self.table[labels])

    def figures(self) -> dict[str, float]:
        logits, truth = (part.cpu().numpy() for part in self._kept.compute())
        self._kept.reset()
        scores = expit(logits)
        found = label_figures(truth, scores, (MIDDLE,) * len(self._labels), self._labels)
        self.confusion = torch.from_numpy(found.confusion)
        self.class_figures = {
            each.label: each.average_precision
            for each in found.labels
            if each.average_precision is not None
        }
        return {
            "val_top1": found.exact,
            "val_macro_f1": found.macro_f1,
            "val_map": found.mean_ap,
            "val_micro_map": found.micro_ap,
        }


class _Kept(Metric):
    """All logits (N, C), with bool (N, C): whether each image has each label."""

    full_state_update = False
    logits: list[torch.Tensor]
    truth: list[torch.Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("logits", default=[], dist_reduce_fx="cat")
        self.add_state("truth", default=[], dist_reduce_fx="cat")

    def update(self, logits: torch.Tensor, truth: torch.Tensor) -> None:
        self.logits.append(logits.float())
        self.truth.append(truth)

    def compute(self) -> tuple[torch.Tensor, torch.Tensor]:
        return dim_zero_cat(self.logits), dim_zero_cat(self.truth)


def taken(metric: Metric) -> float:
    """Returns the value of a metric, and resets it."""
    value = float(metric.compute())
    metric.reset()
    return value
