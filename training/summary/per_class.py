"""The classes of a run, one by one and in pairs, as CSV and as Markdown."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from report.format import number, percent, plural
from report.markdown import escape, table
from training.summary.confusion import ClassResult, Matrix, confused_pairs, shown_classes

PER_CLASS = "per_class.csv"

ALL_CLASSES = 20  # up to which the README lists each class
_WORST, _BEST, _PAIRS = 10, 3, 10  # what it lists of more classes, and of confused pairs
_CLASS_COLUMNS = ("class", "images", "right", "top-1", "precision", "most often taken for")
_PAIR_COLUMNS = ("true class", "taken for", "images", "share of the true class")


def per_class_csv(results: Sequence[ClassResult]) -> str:
    """Returns a CSV line per class; top1 and precision in [0, 1], empty where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    columns = ("class", "images", "right", "top1", "precision", "most_often_taken_for", "times")
    writer.writerow(columns)
    for result in results:
        other = "" if result.taken_for is None else results[result.taken_for].label
        shares = ("" if x is None else f"{x:.6f}" for x in (result.top1, result.precision))
        writer.writerow((result.label, result.images, result.right, *shares, other, result.times))
    return text.getvalue()


def class_lines(results: Sequence[ClassResult]) -> list[str]:
    """Returns Markdown on every class, or on the worst and the best where there are many."""
    meaning = (
        "Top-1 of a class, its recall, is the share of its images that were named rightly. "
        "Precision is the share of the images given its name that bear it. All classes are in "
        f"[{PER_CLASS}]({PER_CLASS})."
    )
    if len(results) <= ALL_CLASSES:
        return [*_class_table(results, results), "", meaning]
    # Of two classes of one top-1, that with more images says more.
    measured = [(result.top1, result) for result in results if result.top1 is not None]
    worst = [r for _, r in sorted(measured, key=lambda pair: (pair[0], -pair[1].images))][:_WORST]
    best = [r for _, r in sorted(measured, key=lambda pair: (-pair[0], -pair[1].images))][:_BEST]
    return [
        f"The {len(worst)} worst:",
        "",
        *_class_table(worst, results),
        "",
        f"The {len(best)} best:",
        "",
        *_class_table(best, results),
        "",
        meaning,
    ]


def _class_table(rows: Iterable[ClassResult], results: Sequence[ClassResult]) -> list[str]:
    cells = []
    for row in rows:
        other = None if row.taken_for is None else results[row.taken_for].label
        cells.append(
            [
                escape(row.label),
                f"{row.images:,} *few*" if row.few else f"{row.images:,}",
                f"{row.right:,}",
                number(row.top1, percent),
                "never answered" if row.precision is None else percent(row.precision),
                "none" if other is None else f"{escape(other)} ({plural(row.times, 'time')})",
            ]
        )
    return table(_CLASS_COLUMNS, cells, numeric=_CLASS_COLUMNS[1:5])


def pair_lines(confusion: Matrix, results: Sequence[ClassResult]) -> list[str]:
    """Returns Markdown on the pairs of classes that are most often confused."""
    pairs = confused_pairs(confusion)
    if not confusion.any():
        return ["No image was held out."]
    if not pairs:
        return ["Nothing: every held-out image was named rightly."]
    rows = [
        [
            escape(results[pair.true].label),
            escape(results[pair.predicted].label),
            f"{pair.count:,}",
            percent(pair.count / results[pair.true].images),
        ]
        for pair in pairs[:_PAIRS]
    ]
    lines = table(_PAIR_COLUMNS, rows, numeric=_PAIR_COLUMNS[2:])
    if len(pairs) > _PAIRS:
        lines += ["", f"These are {_PAIRS} of {len(pairs):,} pairs, the most frequent."]
    return lines


def confusion_caption(confusion: Matrix) -> list[str]:
    """Returns what the picture shows, in sentences without a full stop."""
    colour = "Colour: share of all images of the true class, on a square-root scale"
    total, shown = len(confusion), len(shown_classes(confusion))
    if shown == total:
        return [colour]
    if not confused_pairs(confusion):
        return [f"No two classes were confused: the first {shown} of {total:,} are shown", colour]
    return [
        f"The {shown} of {total:,} classes that are most often confused with each other",
        colour,
    ]
