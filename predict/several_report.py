"""Makes the report of an evaluation of several labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import altair as alt

from predict.report_parts import NAME, held_out, images_section, machine_facts
from predict.several import LabelRow, SeveralEvaluation, SeveralFigures
from report.format import percent, plural
from report.section import Figure, Report, Section, Table
from report.theme import sheet
from training.scan import some
from training.summary.calibration import BINS
from training.summary.confusion import FEW
from training.summary.reliability import reliability_chart

_ALL = 20  # most labels in the main table and the chart
_COLUMNS = ("Label", "Images", "AP", "Threshold", "Given", "Right", "Precision", "Recall", "F1")
_HEIGHT = 300
_METHOD = (
    "Images were decoded, resized and run as a server does it. A score is the sigmoid of a label's "
    "own logit, so scores do not sum to 1; an image is given the labels with a score above their "
    "threshold, which the artifact's manifest has.",
    "Average precision (AP) is the mean of the precision at each image with the label, in the "
    "order of scores; it needs no threshold. mAP is its mean over the labels that images have, "
    "micro mAP that of all pairs of image and label together. F1 is the harmonic mean of "
    "precision, the share of the images given a label that have it, and recall, the share of the "
    "images with it that are given it. Exact: every label of an image is right.",
    f"The expected calibration error is that of all pairs of image and label, on {BINS} bins of "
    "equal width: the mean of how far the share that has the label is from the mean score.",
)


def several_report(evaluation: SeveralEvaluation) -> Report:
    """Returns the report of ``evaluation``."""
    subject, other = evaluation.subject, evaluation.against
    title = f"{subject.model} on {evaluation.data}: {percent(evaluation.mean_ap)} mAP"
    subtitle = (
        f"{subject.path} with {subject.runtime}, {plural(evaluation.images, 'image')}, "
        f"{evaluation.when[:10]}"
    )
    bars = _chart(evaluation.labels)
    reliability = reliability_chart(evaluation.bins, _HEIGHT, several=True)
    drawn = alt.hconcat(
        *(figure.chart.properties(width=_HEIGHT) for figure in (bars, reliability)), spacing=60
    )
    figures = _figures(evaluation, other.figures if other else None)
    return Report(
        name=NAME,
        title=title,
        subtitle=subtitle,
        summary=tuple(_summary(evaluation)),
        terminal=figures,
        figures=(bars, reliability),
        poster=sheet(drawn, title, [subtitle], legend="right"),
        poster_alt=f"{bars.title}, and {reliability.title.lower()}",
        sections=(
            Section(title="Figures", tables=(figures,)),
            images_section(evaluation),
            *_labels(evaluation.labels),
        ),
        facts=tuple(machine_facts(evaluation)),
        method=_METHOD,
    )


def _summary(evaluation: SeveralEvaluation) -> Iterable[str]:
    yield (
        f"The artifact reaches {percent(evaluation.mean_ap)} mAP on "
        f"{plural(evaluation.images, 'image')}; scores by chance would reach "
        f"{percent(evaluation.chance)}. By its thresholds macro-F1 is "
        f"{percent(evaluation.macro_f1)}, micro-F1 {percent(evaluation.micro_f1)}, and every label "
        f"is right for {percent(evaluation.exact)} of the images."
    )
    yield held_out("The artifact", evaluation.subject, included=evaluation.seen_included)
    if evaluation.unreadable:
        yield f"{plural(len(evaluation.unreadable), 'image')} could not be answered."
    if evaluation.unknown:
        yield (
            f"Left out: {plural(len(evaluation.unknown), 'label')} of the data that the artifact "
            f"does not know: {some(tuple(evaluation.unknown))}."
        )
    if twice := evaluation.contradictions:
        yield (
            f"Warning: {plural(len(twice), 'image')}, byte for byte, "
            f"{'has' if len(twice) == 1 else 'have'} other labels, too, so not all can be right: "
            f"{some([' = '.join(each) for each in twice])}."
        )
    if other := evaluation.against:
        gain = other.figures.mean_ap - evaluation.mean_ap
        yield (
            f"The other, {other.subject.path}, has {100 * gain:+.1f} points of mAP. Of the labels "
            f"that either gives an image, both give {percent(other.agreement)} on average."
        )
        if other.subject.seen != evaluation.subject.seen:
            yield held_out("The other", other.subject, included=evaluation.seen_included)


def _figures(first: SeveralFigures, second: SeveralFigures | None) -> Table:
    columns = [first, *([second] if second else [])]
    rows = (
        ("Images", [f"{each.images:,}" for each in columns]),
        ("mAP", [percent(each.mean_ap) for each in columns]),
        ("Micro mAP", [percent(each.micro_ap) for each in columns]),
        ("Macro-F1", [percent(each.macro_f1) for each in columns]),
        ("Micro-F1", [percent(each.micro_f1) for each in columns]),
        ("Exact", [percent(each.exact) for each in columns]),
        ("Expected calibration error", [percent(each.calibration_error) for each in columns]),
    )
    header = ("Artifact", "Against")[: len(columns)]
    return Table(
        header=("Figure", *header),
        rows=tuple((name, *cells) for name, cells in rows),
        numeric=frozenset(header),
    )


def _labels(labels: Sequence[LabelRow]) -> Iterable[Section]:
    few = sum(0 < each.images < FEW for each in labels)
    sentences = []
    if few:
        sentences.append(
            f"{plural(few, 'label')} of fewer than {FEW} images: chance weighs much in their "
            "figures."
        )
    if len(labels) <= _ALL:
        yield Section(title="Labels", sentences=tuple(sentences), tables=(_table(labels),))
        return
    worst = _worst(labels)
    sentences.append(f"The {len(worst)} of the lowest average precision:")
    yield Section(title="Labels", sentences=tuple(sentences), tables=(_table(worst),))
    yield Section(
        title="All labels", tables=(_table(labels),), folded=f"All {len(labels):,} labels"
    )


def _worst(labels: Sequence[LabelRow]) -> list[LabelRow]:
    measured = [each for each in labels if each.average_precision is not None]
    return sorted(measured, key=lambda each: each.average_precision or 0.0)[:_ALL]


def _table(labels: Iterable[LabelRow]) -> Table:
    rows = tuple(
        (
            each.label,
            f"{each.images:,}",
            "no images" if each.average_precision is None else percent(each.average_precision),
            f"{each.threshold:.3f}",
            f"{each.answered:,}",
            f"{each.right:,}",
            "never given" if each.precision is None else percent(each.precision),
            "no images" if each.recall is None else percent(each.recall),
            "-" if each.f1 is None else percent(each.f1),
        )
        for each in labels
    )
    return Table(header=_COLUMNS, rows=rows, numeric=frozenset(_COLUMNS[1:]))


def _chart(labels: Sequence[LabelRow]) -> Figure:
    """Returns the chart of the average precision of each label, or of the lowest."""
    shown = _worst(labels)
    values = [
        {"label": each.label, "ap": each.average_precision, "images": each.images} for each in shown
    ]
    chart = (
        alt.Chart(alt.InlineData(values=values))
        .mark_bar(color="#1f63b0")
        .encode(
            x=alt.X(
                "ap:Q",
                title="average precision",
                scale=alt.Scale(domain=[0, 1]),
                axis=alt.Axis(format="%", tickCount=6),
            ),
            y=alt.Y("label:N", title=None, sort=[each.label for each in shown]),
            tooltip=[alt.Tooltip("images:Q", format=","), alt.Tooltip("ap:Q", format=".1%")],
        )
        .properties(height=_HEIGHT)
    )
    which = "each label" if len(shown) == len(labels) else f"the {len(shown)} labels of the lowest"
    return Figure(
        title="Average precision of the labels",
        caption=f"Of {which}, the lowest first.",
        chart=chart,
    )
