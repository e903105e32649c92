"""Turns logits into an answer: one class, no class where that is unsure, or a set of labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from artifact.records import Logits
from artifact.scores import Scores, largest, sigmoid, softmax
from core.errors import UserError
from core.task import Task

if TYPE_CHECKING:
    from artifact.manifest import Manifest

UNSURE: Literal["unsure"] = "unsure"  # the reason why an answer has no class
Sets = npt.NDArray[np.bool_]


class Answer(NamedTuple):
    """The answer to one image.

    Attributes:
        scores: (C,), in [0, 1], in the order of the labels.
        chosen: indices of the answer, the highest score first: one class, none where that is
            unsure, or each label with a score above its threshold.
        shown: indices of the predictions to give with it, the highest score first: the most likely
            ones, and all of ``chosen``.
    """

    scores: Scores
    chosen: tuple[int, ...]
    shown: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Answering:
    """How logits become an answer.

    Attributes:
        task: one class of an image, or any number of labels.
        thresholds: (C,) scores above which an image has a label; only for several labels.
        least: score below which the most likely class is no answer; only for one class. None to
            answer always.
    """

    task: Task = "single"
    thresholds: tuple[float, ...] = ()
    least: float | None = None

    def scores(self, logits: Logits) -> Scores:
        """Returns the scores (C,) of one image's logits (C,), in [0, 1].

        Those of several labels do not sum to 1.
        """
        return sigmoid(logits) if self.task == "multi" else softmax(logits)

    def answer(self, logits: Logits, top_k: int) -> Answer:
        """Returns the answer to one image, from its logits (C,), with ``top_k`` predictions."""
        scores = self.scores(logits)
        best = largest(scores, min(top_k, len(scores)))
        if self.task == "single":
            sure = self.least is None or scores[best[0]] >= self.least
            return Answer(scores, (int(best[0]),) if sure else (), tuple(best.tolist()))
        above = scores > self.thresholds
        shown = np.union1d(best, np.flatnonzero(above))
        shown = shown[np.argsort(-scores[shown], kind="stable")]
        return Answer(scores, tuple(shown[above[shown]].tolist()), tuple(shown.tolist()))

    def sets(self, logits: Logits) -> Sets:
        """Returns the answers (N, C) to logits (N, C) as sets: whether an image has each label.

        For one class, that is the most likely one, sure or not.
        """
        if self.task == "multi":
            return np.asarray(sigmoid(logits) > self.thresholds)
        answers: Sets = np.zeros(logits.shape, dtype=np.bool_)
        answers[np.arange(len(logits)), logits.argmax(axis=1)] = True
        return answers


ONE_CLASS = Answering()


def can_abstain(artifact: Manifest) -> bool:
    """Returns whether ``artifact`` has a score below which it may give no class."""
    return artifact.task == "single" and artifact.abstention is not None


def answering_of(artifact: Manifest, *, abstain: bool = False) -> Answering:
    """Returns how the logits of ``artifact`` become an answer.

    Args:
        artifact: of which task, thresholds and abstention are taken.
        abstain: whether to give no class where it is unsure.

    Raises:
        UserError: it is to abstain, and has no threshold for that.
    """
    if not abstain:
        return Answering(task=artifact.task, thresholds=artifact.thresholds)
    if artifact.task == "multi":
        raise UserError(
            f"{artifact.model}-{artifact.data}: images have any number of labels, each above a "
            "threshold of its own, so there is nothing to abstain from; leave out --abstain "
            "(POCKETNETS_ABSTAIN)"
        )
    if artifact.abstention is None:
        raise UserError(
            f"{artifact.model}-{artifact.data}: it has no score below which to abstain; leave out "
            "--abstain (POCKETNETS_ABSTAIN), or train with --recipe.answer-precision 0.95 and "
            "export again"
        )
    return Answering(least=artifact.abstention.threshold)


def agreement(first: Sets, second: Sets) -> float:
    """Returns how far two answers (N, C) to the same images agree, in [0, 1].

    It is the mean over the images of what both have of what either has (Jaccard's index), 1 where
    neither has a label. Of one class each, it is the fraction of the images with the same class.
    """
    both, either = (first & second).sum(axis=1), (first | second).sum(axis=1)
    shares: npt.NDArray[Any] = np.where(either, both / np.maximum(either, 1), 1.0)
    return float(shares.mean())
