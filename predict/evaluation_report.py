"""Makes the report of an evaluation."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import altair as alt
import numpy as np

from core.files import write_whole
from core.record_file import dump
from predict.calibration import calibration
from predict.evaluation import Abstaining, Comparison, Evaluation
from predict.figures import CHANCE, ClassFigures, Figures
from predict.report_parts import NAME, AnyEvaluation, held_out, images_section, machine_facts
from report.format import percent, plural, points
from report.section import Figure, Picture, Report, Section, Table
from report.theme import sheet
from report.write import write_report
from training.scan import some
from training.summary.calibration import BINS
from training.summary.confusion import FEW, Matrix, most_confused, wilson
from training.summary.matrix import confusion_chart
from training.summary.reliability import reliability_chart

_ALL = 20  # most classes in the main table
_CELLS = 30  # most classes for which the confusion matrix shows all
_PAIRS = 10
_COLUMNS = ("Class", "Images", "Right", "Precision", "Recall", "F1")


def write_evaluation(evaluation: AnyEvaluation, report: Report, folder: Path) -> Path:
    """Writes ``report`` to ``folder`` and returns the path of the HTML page.

    It also writes ``evaluation.md``, ``evaluation.json`` and ``evaluation.png``; all files are
    moved there once all are complete.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{NAME}-", dir=folder) as work:
        write_report(report, Path(work))
        write_whole(Path(work, f"{NAME}.json"), dump(evaluation, indent=1) + b"\n")
        for file in sorted(Path(work).iterdir()):
            os.replace(file, folder / file.name)
    return folder / f"{NAME}.html"


def evaluation_report(evaluation: Evaluation) -> Report:
    """Returns the report of ``evaluation``."""
    subject, other = evaluation.subject, evaluation.against
    title = f"{subject.model} on {evaluation.data}: {percent(evaluation.top1)} top-1"
    subtitle = (
        f"{subject.path} with {subject.runtime}, {plural(evaluation.images, 'image')}, "
        f"{evaluation.when[:10]}"
    )
    matrix = _matrix(evaluation)
    side = matrix.chart.height
    reliability = reliability_chart(evaluation.bins, side)
    drawn = alt.hconcat(
        *(figure.chart.properties(width=side) for figure in (matrix, reliability)), spacing=60
    ).resolve_scale(color="independent")
    return Report(
        name=NAME,
        title=title,
        subtitle=subtitle,
        summary=tuple(_summary(evaluation)),
        footnotes=tuple(_answered(evaluation.abstaining)),
        terminal=_figures(evaluation, other),
        figures=(matrix, reliability),
        poster=sheet(drawn, title, [subtitle], data=matrix.data, legend="right"),
        poster_alt=f"{matrix.title}, and {reliability.title.lower()}",
        sections=(
            Section(title="Figures", tables=(_figures(evaluation, other),)),
            *([_comparison(evaluation, other)] if other else []),
            images_section(evaluation),
            *_classes(evaluation.classes),
            _confusions(evaluation),
            _mistakes(evaluation),
            calibration(evaluation),
            *_abstaining(evaluation.abstaining),
        ),
        facts=tuple(machine_facts(evaluation)),
        method=_METHOD,
    )


_METHOD = (
    "Images were decoded, resized and run as a server does it.",
    "The interval of top-1 is Wilson's score interval at 95 %. It covers the chance of which "
    "images were taken, nothing else: images from another camera or place can do worse.",
    "Precision is the share of the images given a name that bear it, recall the share of a class's "
    "images that are given its name, F1 their harmonic mean. Macro-F1 and balanced accuracy are "
    "the means of F1 and of recall over the classes that have images.",
    f"The expected calibration error is that of Guo et al. 2017 (On Calibration of Modern Neural "
    f"Networks), on {BINS} bins of equal width: the mean over all images of how far the top-1 of "
    "their bin is from its mean score. A score is the softmax of the best class.",
)
_PAIRED = (
    "The p-value of two artifacts is that of McNemar's exact test, two-sided: the binomial test on "
    "the images that only one of them classifies correctly. A difference is called more than "
    f"chance where it is below {CHANCE:g}. The interval of their difference is Newcombe's for "
    "paired proportions (1998, method 10), made of Wilson's; near p = 0.05 the two may disagree."
)


def _summary(evaluation: Evaluation) -> Iterable[str]:
    low, high = evaluation.interval
    largest = max(each.images for each in evaluation.classes)
    yield (
        f"The artifact classifies {evaluation.right:,} of {plural(evaluation.images, 'image')} "
        f"correctly: {percent(evaluation.top1)} top-1 (95 % interval {low * 100:.1f} to "
        f"{percent(high)}). "
        f"Always answering the largest class would reach {percent(largest / evaluation.images)}."
    )
    yield held_out("The artifact", evaluation.subject, included=evaluation.seen_included)
    if evaluation.unreadable:
        yield f"{plural(len(evaluation.unreadable), 'image')} could not be answered."
    if evaluation.unknown:
        yield (
            f"Left out: {plural(sum(evaluation.unknown.values()), 'image')} of "
            f"{plural(len(evaluation.unknown), 'class', 'classes')} without a label: "
            f"{some(tuple(evaluation.unknown))}."
        )
    if twice := evaluation.contradictions:
        yield (
            f"Warning: {plural(len(twice), 'image')} of one class, byte for byte, "
            f"{'is' if len(twice) == 1 else 'are'} in another one, too, so not all can be "
            f"classified correctly: {some([' = '.join(each) for each in twice])}."
        )
    if other := evaluation.against:
        yield _verdict(other)
        if other.subject.seen != evaluation.subject.seen:
            yield held_out("The other", other.subject, included=evaluation.seen_included)


def _verdict(other: Comparison) -> str:
    pairs = other.paired
    # As the sentence has it: the other less this one.
    low, high = (100 * end for end in (-pairs.interval[1], -pairs.interval[0]))
    interval = f"95 % interval of the difference {low:+.1f} to {high:+.1f} points"
    if pairs.difference == 0:
        return f"The other, {other.subject.path}, classifies as many images correctly ({interval})."
    more = "less" if pairs.difference > 0 else "more"
    chance = "more" if pairs.more_than_chance else "no more"
    return (
        f"The other, {other.subject.path}, reaches {points(abs(pairs.difference))} {more} top-1 "
        f"({interval}), which is {chance} than chance makes (p = {pairs.p_value:.2g})."
    )


def _figures(evaluation: Evaluation, other: Comparison | None) -> Table:
    columns: list[Figures] = [evaluation, *([other.figures] if other else [])]
    names = ("Artifact", "Against")
    rows = [
        ("Images", [f"{each.images:,}" for each in columns]),
        ("Top-1", [percent(each.top1) for each in columns]),
        ("95 % interval", [_interval(each) for each in columns]),
        ("Top-5", [percent(each.top5) for each in columns if each.top5 is not None]),
        ("Macro-F1", [percent(each.macro_f1) for each in columns]),
        ("Balanced accuracy", [percent(each.balanced_accuracy) for each in columns]),
        ("Mean score", [percent(each.confidence) for each in columns]),
        ("Expected calibration error", [percent(each.calibration_error) for each in columns]),
    ]
    header = names[: len(columns)]
    return Table(
        header=("Figure", *header),
        rows=tuple((name, *cells) for name, cells in rows if cells),
        numeric=frozenset(header),
    )


def _interval(figures: Figures) -> str:
    low, high = figures.interval
    return f"{low * 100:.1f} to {percent(high)}"


def _comparison(evaluation: Evaluation, other: Comparison) -> Section:
    pairs = other.paired
    rows = (
        ("Both", pairs.both),
        ("Only the artifact", pairs.only_first),
        ("Only the other", pairs.only_second),
        ("Neither", pairs.neither),
    )
    return Section(
        title="Against another artifact",
        sentences=(
            f"Both were run on the same images, the other with {other.subject.runtime}.",
            _verdict(other),
            held_out("The other", other.subject, included=evaluation.seen_included),
            f"They give {percent(pairs.agreement)} of the images the same name.",
        ),
        tables=(
            Table(
                header=("Classified correctly by", "Images", "Share"),
                rows=tuple(
                    (name, f"{count:,}", percent(count / evaluation.images)) for name, count in rows
                ),
                numeric=frozenset({"Images", "Share"}),
            ),
        ),
        notes=(_PAIRED,),
    )


def _classes(classes: Sequence[ClassFigures]) -> Iterable[Section]:
    used = [each for each in classes if each.images or each.predicted]
    few = sum(0 < each.images < FEW for each in used)
    sentences = []
    if few:
        sentences.append(
            f"{plural(few, 'class', 'classes')} of fewer than {FEW} images: chance weighs much in "
            "their figures."
        )
    if len(used) <= _ALL:
        yield Section(title="Classes", sentences=tuple(sentences), tables=(_class_table(used),))
        return
    worst = sorted((each for each in used if each.images), key=lambda each: each.f1 or 0.0)[:_ALL]
    sentences.append(f"The {len(worst)} of the lowest F1:")
    yield Section(title="Classes", sentences=tuple(sentences), tables=(_class_table(worst),))
    yield Section(
        title="All classes", tables=(_class_table(used),), folded=f"All {len(used):,} classes"
    )


def _class_table(classes: Iterable[ClassFigures]) -> Table:
    rows = tuple(
        (
            each.label,
            *(f"{count:,}" for count in (each.images, each.right)),
            "never answered" if each.precision is None else percent(each.precision),
            "no images" if each.recall is None else percent(each.recall),
            "-" if each.f1 is None else percent(each.f1),
        )
        for each in classes
    )
    return Table(header=_COLUMNS, rows=rows, numeric=frozenset(_COLUMNS[1:]))


def _matrix(evaluation: Evaluation) -> Figure:
    confusion = evaluation.confusion
    labels = [each.label for each in evaluation.classes]
    shown, caption = _shown(confusion)
    chart, data = confusion_chart(confusion, labels, shown)
    return Figure(
        title="Confusion matrix",
        caption=f"{caption} Colour is the share of all images of the true class.",
        chart=chart,
        data=data,
    )


def _confusions(evaluation: Evaluation) -> Section:
    pairs, classes = evaluation.pairs, evaluation.classes
    if not pairs:
        return Section(title="Confusions", sentences=("Every image is classified correctly.",))
    header = ("True class", "Taken for", "Images", "Share of the true class")
    rows = tuple(
        (
            classes[pair.true].label,
            classes[pair.predicted].label,
            f"{pair.count:,}",
            percent(pair.count / classes[pair.true].images),
        )
        for pair in pairs[:_PAIRS]
    )
    of = f" {_PAIRS} of {len(pairs):,}" if len(pairs) > _PAIRS else ""
    return Section(
        title="Confusions",
        sentences=(f"The{of} pairs of classes that are confused, the most frequent first.",),
        tables=(Table(header=header, rows=rows, numeric=frozenset(header[2:])),),
    )


def _shown(confusion: Matrix) -> tuple[list[int], str]:
    """Returns the classes shown in the picture, and a sentence that describes them."""
    used = np.flatnonzero(confusion.sum(axis=0) + confusion.sum(axis=1)).tolist()
    if len(used) <= _CELLS:
        return used, "All classes that have images or are answered."
    if chosen := most_confused(confusion, _ALL):
        return chosen, f"The {len(chosen)} classes that are most often confused with each other."
    return used[:_ALL], f"The first {_ALL} classes: none was confused."


def _answered(found: Abstaining | None) -> Iterable[str]:
    """Yields a line on what is answered, if the artifact can abstain."""
    if found is not None:
        right = "none" if found.precision is None else percent(found.precision)
        yield (
            f"Without answers below {found.threshold:.3f} (--abstain): precision {right} at "
            f"coverage {percent(found.coverage)}."
        )


def _abstaining(found: Abstaining | None) -> Iterable[Section]:
    """Yields the section on images without an answer, if the artifact can abstain."""
    if found is None:
        return
    precision = "none is right or wrong"
    if found.precision is not None:
        low, high = wilson(found.right, found.answered)
        precision = (
            f"{percent(found.precision)} of the answers are right (95 % interval "
            f"{low * 100:.1f} to {percent(high)})"
        )
    yield Section(
        title="No answer where it is unsure",
        sentences=(
            f"If images with a best score below {found.threshold:.3f} get no answer (--abstain in "
            f"serving and predict), {plural(found.answered, 'image')} "
            f"({percent(found.coverage)}) are answered, and {precision}. The threshold was chosen "
            f"in training for a precision of {percent(found.wanted)}.",
        ),
    )


def _mistakes(evaluation: Evaluation) -> Section:
    mistakes = evaluation.mistakes
    if not mistakes:
        return Section(title="Worst mistakes", sentences=("There is none.",))
    wrong = evaluation.images - evaluation.right
    header = ("Image", "True class", "Taken for", "Score")
    return Section(
        title="Worst mistakes",
        sentences=(
            f"The {len(mistakes)} of {plural(wrong, 'wrong answer')} with the highest scores."
            if wrong > len(mistakes)
            else "All wrong answers, those with the highest scores first.",
        ),
        pictures=tuple(
            Picture(
                jpeg=each.thumbnail,
                title=f"{each.label}, taken for {each.answer}",
                lines=(f"score {percent(each.score)}", each.image),
            )
            for each in mistakes
        ),
        tables=(
            Table(
                header=header,
                rows=tuple(
                    (each.image, each.label, each.answer, percent(each.score)) for each in mistakes
                ),
                numeric=frozenset({"Score"}),
            ),
        ),
        folded="The same as a table",
    )
