"""Evaluates an artifact on labelled images: python -m predict.evaluate ARTIFACT DATA."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from artifact.artifact import Artifact
from core import cli
from core.conditions import now
from core.errors import UserError
from core.files import check_folder
from core.preprocess import Truncated, encode_png
from core.task import Task
from predict.classifier import Classifier, Limits, Prediction
from predict.evaluation import Abstaining, Comparison, Evaluation, Subject, Unreadable
from predict.figures import Figures, Indices, figures_of, paired
from predict.matching import match_classes, read_names
from predict.pipeline import Item, Row, classify, file_item, readable
from predict.seen import learned_by
from predict.selection import Selected, select_images
from predict.several import SeveralEvaluation, evaluate_several, every_combination, truth_of
from training.datasets import DATASETS
from training.labelled import load_labelled
from training.options import FolderLayout
from training.records import TOP
from training.scan import some
from training.summary.calibration import Scores
from training.summary.mistakes import worst_mistakes
from training.thresholds import answers_at

WORST = 24  # number of mistakes reported
_DATA = (
    f"Data set by name ({', '.join(DATASETS)}), whose held-out images are taken; or a folder with "
    "one folder of images per class, or with parts, of which test/ is taken, else val/, or of "
    "images that --labels names."
)
_Name = Annotated[str | None, tyro.conf.arg(metavar="NAME")]
_File = Annotated[Path | None, tyro.conf.arg(metavar="FILE")]
_Folder = Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")]


def evaluate(
    artifact: str | Path,
    data: str | Path,
    *,
    against: str | Path | None = None,
    runtime: str | None = None,
    against_runtime: str | None = None,
    include_seen: bool = False,
    layout: FolderLayout | None = None,
    names: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    threads: int | None = None,
    allow_unverified: bool = False,
    console: Console | None = None,
) -> Evaluation | SeveralEvaluation:
    """Evaluates an artifact on labelled images that it was not trained on.

    If its images may have several labels, it is a :class:`predict.several.SeveralEvaluation`.

    Images are decoded and run by :func:`predict.pipeline.classify`, as in a server.

    Args:
        artifact: folder of the artifact.
        data: name of a data set, or folder; see :func:`training.labelled.load_labelled`.
        against: folder of another artifact with the same labels, to compare on the same images.
        runtime: runtime of the artifact; None for the choice of :meth:`Classifier.open`.
        against_runtime: runtime of the other artifact, likewise.
        include_seen: whether to include images that an artifact was trained on.
        layout: how to read a folder.
        names: labels by class of the data, where the names differ.
        limits: limits of accepted images; None for those of a server.
        threads: number of batches processed concurrently; None for one per core.
        allow_unverified: whether to accept artifacts that were never run.
        console: console for progress; None for no progress.

    Raises:
        UserError: an artifact that cannot be run, no labelled images, no class that is a label, two
            artifacts with different labels, or no image that can be classified.
    """
    limits, layout = limits or Limits(), layout or FolderLayout()
    wanted = [(artifact, runtime), *([(against, against_runtime)] if against else [])]
    with ExitStack() as stack:
        classifiers = [
            stack.enter_context(
                Classifier.open(
                    path,
                    runtime=name,
                    threads=threads,
                    limits=limits,
                    allow_unverified=allow_unverified,
                )
            )
            for path, name in wanted
        ]
        labels, several = classifiers[0].labels, _task(classifiers, layout) == "multi"
        images = load_labelled(str(data), replace(layout, multi_label=several))
        places = [_places(classifiers[0].artifact, each.artifact) for each in classifiers]
        matching = match_classes(images.labels, labels, names)
        learned = [learned_by(each.artifact) for each in classifiers]
        selected = select_images(
            images,
            every_combination(images) if several else matching,
            learned,
            include_seen=include_seen,
            console=console,
        )
        top_k = len(labels) if several else TOP
        rows = [_rows(each, selected, top_k, console) for each in classifiers]
    unreadable, kept = list(selected.unreadable), []
    for number, of_one in enumerate(zip(*rows, strict=True)):
        if reason := next((row.error for row in of_one if row.error is not None), None):
            unreadable.append(Unreadable(image=selected.names[number], reason=reason))
        else:
            kept.append(number)
    if not kept:
        raise UserError(
            f"{data}: none of its {len(unreadable):,} {images.part} can be answered, such as "
            f"{unreadable[0].image}: {unreadable[0].reason}"
        )
    indices = [selected.samples[number][1] for number in kept]
    truth = np.array(indices, dtype=np.int64)
    circumstances: dict[str, Any] = {
        "data": readable(str(data)),
        "part": images.part,
        "when": now(),
        "unreadable": tuple(unreadable),
        "seen": selected.seen,
        "seen_included": include_seen,
        "unknown": selected.unknown,
        "lacking": matching.lacking,
        "contradictions": selected.contradictions,
        "unused": tuple(map(readable, images.scan.lines())),
    }
    subjects = [
        Subject(
            path=readable(str(each.artifact.path)),
            model=each.artifact.model,
            data=each.artifact.data,
            format=each.artifact.format,
            precision=each.artifact.precision,
            runtime=each.runtime,
            seen=seen,
            source=known.words,
        )
        for each, seen, known in zip(classifiers, selected.seen_by, learned, strict=True)
    ]
    if several:
        predictions = [[of_one[number].prediction for number in kept] for of_one in rows]
        sets = truth_of(images, matching, indices, len(labels))
        return evaluate_several(
            [each.answering for each in classifiers],
            [_sound(each) for each in predictions],
            places,
            sets,
            images,
            matching,
            labels,
            subjects,
            circumstances,
        )
    answers = [
        _Answers.of([of_one[number].prediction for number in kept], place)
        for of_one, place in zip(rows, places, strict=True)
    ]
    figures = [figures_of(truth, each.best, each.scores, labels) for each in answers]
    comparison = None
    if against:
        first, second = (each.best[:, 0] for each in answers)
        pairs = paired(first == truth, second == truth, first == second)
        comparison = Comparison(subject=subjects[1], figures=figures[1], paired=pairs)
    return Evaluation(
        **{field.name: getattr(figures[0], field.name) for field in fields(Figures)},
        **circumstances,
        subject=subjects[0],
        mistakes=worst_mistakes(
            [selected.samples[number] for number in kept],
            [selected.names[number] for number in kept],
            answers[0].best[:, 0],
            answers[0].scores,
            labels,
            WORST,
        ),
        against=comparison,
        abstaining=_abstaining(classifiers[0].artifact, answers[0], truth),
    )


def _task(classifiers: Sequence[Classifier], layout: FolderLayout) -> Task:
    """Returns what all artifacts answer.

    Raises:
        UserError: they answer different things, or the layout is for the other.
    """
    first, *others = [each.artifact for each in classifiers]
    for other in others:
        if other.task != first.task:
            raise UserError(
                f"{other.path} cannot be compared with {first.path}: one gives an image one class, "
                "the other several labels"
            )
    if first.task == "multi" and layout.labels is None:
        raise UserError(
            f"{first.path} gives an image several labels: name the CSV file that has those of each "
            "image, --labels FILE"
        )
    if first.task == "single" and layout.multi_label:
        raise UserError(f"{first.path} gives an image one class: leave out --multi-label")
    return first.task


def _abstaining(artifact: Artifact, answers: _Answers, truth: Indices) -> Abstaining | None:
    """Returns what is answered if ``artifact`` abstains; None if it cannot."""
    if (found := artifact.abstention) is None:
        return None
    hits = answers.best[:, 0] == truth
    right, answered = answers_at(found.threshold, answers.scores, hits)
    return Abstaining(
        threshold=found.threshold,
        wanted=found.wanted,
        answered=answered,
        right=right,
        precision=right / answered if answered else None,
        coverage=answered / len(truth),
    )


def _sound(predictions: Sequence[Prediction | None]) -> list[Prediction]:
    sound = [each for each in predictions if each is not None]
    assert len(sound) == len(predictions)
    return sound


@dataclass(frozen=True, slots=True)
class _Answers:
    """Predicted classes of each image (N, k), most likely first, with the score of the first."""

    best: Indices
    scores: Scores

    @classmethod
    def of(cls, predictions: Sequence[Prediction | None], places: Indices) -> _Answers:
        """Returns the answers, with class indices mapped by ``places``."""
        sound = _sound(predictions)
        best = np.array([each.indices for each in sound], dtype=np.int64)
        return cls(places[best], np.array([each.score for each in sound]))


def _places(first: Artifact, other: Artifact) -> Indices:
    """Returns the index in the labels of ``first`` for each label of ``other``.

    Raises:
        UserError: their labels differ.
    """
    if first.labels == other.labels:
        return np.arange(len(first.labels))
    place = {label: index for index, label in enumerate(first.labels)}
    differing = sorted(place.keys() ^ set(other.labels))
    if differing or len(place) < len(first.labels) or len(other.labels) != len(first.labels):
        where = some(differing) if differing else "one stands twice"
        raise UserError(
            f"{other.path} cannot be compared with {first.path}: they have other labels ({where})"
        )
    return np.array([place[label] for label in other.labels], dtype=np.int64)


def _rows(
    classifier: Classifier, selected: Selected, top_k: int, console: Console | None
) -> list[Row]:
    items = (
        _item(name, source, classifier.limits)
        for name, (source, _) in zip(selected.names, selected.samples, strict=True)
    )
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    hidden = console is None or not console.is_terminal
    with Progress(
        *columns, TimeRemainingColumn(), console=console, disable=hidden, transient=True
    ) as progress:
        outcomes = progress.track(
            classify(classifier, items, top_k=top_k),
            total=len(selected.samples),
            description=f"evaluating {classifier.artifact.name}",
        )
        return [outcome.row for outcome in outcomes]


def _item(name: str, source: Path | Image.Image, limits: Limits) -> Item:
    if isinstance(source, Path):
        return file_item(source, limits.max_bytes)
    return Item(path=name, load=lambda: encode_png(source))


@dataclass(frozen=True, kw_only=True)
class Evaluate(FolderLayout):
    """Evaluate an artifact on labelled images and write reports/evaluation.html."""

    artifact: tyro.conf.Positional[Path]
    """Its folder."""
    data: Annotated[tyro.conf.Positional[str], tyro.conf.arg(help=_DATA)]
    against: _Folder = None
    """Another artifact with the same labels, to compare on the same images."""
    runtime: _Name = None
    """Runtime of the artifact. Default: the benchmark's pick, else ort-cpu."""
    against_runtime: _Name = None
    """Runtime of the other artifact, likewise."""
    include_seen: bool = False
    """Include images that an artifact was trained on."""
    map: _File = None
    """CSV file without a header: a class of the data and its label, where their names differ."""
    truncated: Truncated = "refuse"
    """Whether to accept truncated JPEGs."""
    threads: Annotated[int | None, tyro.conf.arg(metavar="NUMBER")] = None
    """Number of batches processed concurrently. Default: one per core."""
    allow_unverified: bool = False
    """Evaluate an artifact even if it was never run."""
    out: Path = Path("reports")
    """Folder for evaluation.html, .md, .json and the pictures."""
    all: bool = False
    """Print the whole report, not only the most important parts."""

    def __call__(self) -> None:
        """Evaluates, writes the report, and prints its figures and the path of its page."""
        from predict.evaluation_report import evaluation_report, write_evaluation
        from predict.several_report import several_report
        from report.terminal import show_report

        check_folder(self.out)  # before the evaluation, which takes long
        try:
            evaluation = evaluate(
                self.artifact,
                self.data,
                against=self.against,
                runtime=self.runtime,
                against_runtime=self.against_runtime,
                include_seen=self.include_seen,
                layout=self,
                names=read_names(self.map) if self.map else None,
                limits=Limits(truncated=self.truncated),
                threads=self.threads,
                allow_unverified=self.allow_unverified,
                console=cli.notes(),
            )
            report = (
                several_report(evaluation)
                if isinstance(evaluation, SeveralEvaluation)
                else evaluation_report(evaluation)
            )
            page = write_evaluation(evaluation, report, self.out)
        except KeyboardInterrupt as stop:
            raise type(stop)("no report was written") from None
        show_report(report, every=self.all)
        print(page)


def main() -> int | None:
    """Runs the command line and returns its exit status."""
    return tyro.cli(Evaluate, prog=cli.program("predict.evaluate"))()


if __name__ == "__main__":
    cli.run(main)
