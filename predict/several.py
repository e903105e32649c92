"""Evaluates artifacts whose images may have several labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from artifact.answering import Answering, Sets, agreement
from core.errors import UserError
from predict.classifier import Prediction
from predict.evaluation import Subject, Unreadable
from predict.figures import Indices
from predict.matching import Matching
from training.data import label_sets
from training.labelled import Labelled
from training.scan import some
from training.summary.calibration import Bin, Scores, calibration_bins, calibration_error
from training.summary.label_figures import label_figures


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelRow:
    """Figures of one label; None where there are no images to compute them from.

    Attributes:
        label: its name.
        images: number of images with it.
        answered: number of images that are given it.
        right: number of these that have it.
        threshold: score above which an image is given it.
        average_precision: mean of the precision at each image with it, in the order of scores.
        precision: ``right`` over ``answered``.
        recall: ``right`` over ``images``.
        f1: harmonic mean of the two.
    """

    label: str
    images: int
    answered: int
    right: int
    threshold: float
    average_precision: float | None
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class SeveralFigures:
    """Figures of answers with any number of labels; fractions are in [0, 1].

    Attributes:
        images: number of images.
        mean_ap: mean average precision (macro mAP), over the labels that images have.
        micro_ap: average precision of all pairs of image and label together (micro mAP).
        chance: mean average precision of scores by chance.
        macro_f1: mean of the F1 of the labels that images have.
        micro_f1: F1 of all pairs of image and label together.
        exact: fraction of the images of which every label is right.
        calibration_error: expected calibration error over ``bins``.
        labels: figures of each label that artifact and data both have.
        bins: bins of equal width by score, of all pairs of image and label.
    """

    images: int
    mean_ap: float
    micro_ap: float
    chance: float
    macro_f1: float
    micro_f1: float
    exact: float
    calibration_error: float
    labels: tuple[LabelRow, ...]
    bins: tuple[Bin, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SeveralComparison:
    """Another artifact on the same images.

    Attributes:
        subject: the other artifact.
        figures: its figures.
        agreement: mean over the images of what both answer of what either does (Jaccard's index).
    """

    subject: Subject
    figures: SeveralFigures
    agreement: float


@dataclass(frozen=True, kw_only=True, slots=True)
class SeveralEvaluation(SeveralFigures):
    """The figures of an artifact on images with several labels, and what was left out.

    Attributes:
        subject: the artifact.
        data: path of the folder.
        part: a text that says which images of it were used.
        when: UTC date and time, ISO 8601.
        unreadable: images that could not be answered.
        seen: number of images that either artifact was trained on.
        seen_included: whether they are included; otherwise they were left out.
        unknown: number of images with each label of the data that is none of the artifact.
        lacking: labels of the artifact that are none of the data; not in the figures.
        contradictions: pairs of names of byte-identical images with different labels.
        unused: texts on files of a folder that were not used, with the reason.
        against: another artifact on the same images.
    """

    subject: Subject
    data: str
    part: str
    when: str
    unreadable: tuple[Unreadable, ...]
    seen: int
    seen_included: bool
    unknown: Mapping[str, int]
    lacking: tuple[str, ...]
    contradictions: tuple[tuple[str, str], ...] = ()
    unused: tuple[str, ...] = ()
    against: SeveralComparison | None = None


def truth_of(images: Labelled, matching: Matching, indices: Sequence[int], count: int) -> Sets:
    """Returns bool (N, C): whether images have each of the artifact's ``count`` labels.

    Args:
        images: the labelled images.
        matching: index of the artifact's label for each label of theirs.
        indices: (N,) of the images' combinations.
        count: number of labels of the artifact.
    """
    given = np.asarray(indices, dtype=np.int64)
    had = label_sets(given, images.combinations, len(images.labels))
    truth: Sets = np.zeros((len(indices), count), dtype=np.bool_)
    for column, label in enumerate(matching.indices):
        if label is not None:
            truth[:, label] |= had[:, column]
    return truth


def _scores_of(predictions: Sequence[Prediction], count: int) -> Scores:
    """Returns the scores (N, C) of predictions that hold all ``count`` labels."""
    scores = np.zeros((len(predictions), count))
    for row, found in zip(scores, predictions, strict=True):
        row[list(found.indices)] = [score for _, score in found.top]
    return scores


def _figures(
    truth: Sets, scores: Scores, limits: Scores, labels: Sequence[str], known: Sequence[int]
) -> SeveralFigures:
    """Computes the figures of the ``known`` labels, by their indices.

    Args:
        truth: (N, C), whether each image has each label; N is at least 1.
        scores: (N, C), in [0, 1].
        limits: (C,), the thresholds.
        labels: names of all labels.
        known: indices of the labels of which the data says whether images have them.
    """
    columns = list(known)
    truth, scores, thresholds = truth[:, columns], scores[:, columns], limits[columns].tolist()
    found = label_figures(truth, scores, thresholds, [labels[at] for at in columns])
    bins = calibration_bins(truth.ravel(), scores.ravel())
    return SeveralFigures(
        images=found.images,
        mean_ap=found.mean_ap,
        micro_ap=found.micro_ap,
        chance=found.chance,
        macro_f1=found.macro_f1,
        micro_f1=found.micro_f1,
        exact=found.exact,
        calibration_error=calibration_error(bins),
        labels=tuple(
            LabelRow(
                label=each.label,
                images=each.images,
                answered=each.answered,
                right=each.right,
                threshold=each.threshold,
                average_precision=each.average_precision,
                precision=each.precision,
                recall=each.recall,
                f1=each.f1,
            )
            for each in found.labels
        ),
        bins=bins,
    )


def every_combination(images: Labelled) -> Matching:
    """Returns what selects images with any labels: each combination is kept as it is."""
    return Matching(indices=tuple(range(len(images.combinations))), unknown={}, lacking=())


def evaluate_several(
    answerings: Sequence[Answering],
    predictions: Sequence[Sequence[Prediction]],
    places: Sequence[Indices],
    truth: Sets,
    images: Labelled,
    matching: Matching,
    labels: Sequence[str],
    subjects: Sequence[Subject],
    circumstances: Mapping[str, Any],
) -> SeveralEvaluation:
    """Returns the evaluation of one artifact, or of two on the same images.

    Args:
        answerings: of each artifact: its thresholds.
        predictions: of each artifact for each image, with all labels.
        places: of each artifact: index among ``labels`` of each of its own labels.
        truth: bool (N, C), whether each image has each label.
        images: the labelled images.
        matching: index of the artifact's label for each label of theirs.
        labels: labels of the first artifact.
        subjects: the artifacts.
        circumstances: the fields of the evaluation that are not figures.

    Raises:
        UserError: no image has a label of the artifact.
    """
    if not truth.any():
        raise UserError(
            f"{images.data}: no image has any of the artifact's labels ({some(labels)})"
        )
    known = sorted({label for label in matching.indices if label is not None})
    scores, figures, sets = [], [], []
    for answering, found, place in zip(answerings, predictions, places, strict=True):
        own = _scores_of(found, len(labels))
        put = np.zeros_like(own)
        put[:, place] = own
        limits = np.zeros(len(labels))
        limits[place] = answering.thresholds
        scores.append(put)
        sets.append(put > limits)
        figures.append(_figures(truth, put, limits, labels, known))
    against = None
    if len(subjects) > 1:
        against = SeveralComparison(
            subject=subjects[1], figures=figures[1], agreement=agreement(*sets)
        )
    had = label_sets(
        np.array([index for _, index in images.samples], dtype=np.int64),
        images.combinations,
        len(images.labels),
    ).sum(axis=0)
    counts = dict(zip(images.labels, had.tolist(), strict=True))
    return SeveralEvaluation(
        **{field.name: getattr(figures[0], field.name) for field in fields(SeveralFigures)},
        **{**circumstances, "unknown": {name: counts[name] for name in matching.unknown}},
        subject=subjects[0],
        against=against,
    )
