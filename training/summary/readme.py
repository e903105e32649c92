"""The README of a run, generated from its figures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from report.format import MISSING, duration, number, percent, plural, points
from report.markdown import escape, table
from training.records import MONITORS, Epoch, RunFacts
from training.summary.calibration import Calibration, calibration_error
from training.summary.confusion import (
    FEW,
    PER_CLASS,
    ClassResult,
    Matrix,
    balanced_accuracy,
    chance,
    class_results,
    confused_pairs,
    macro_f1,
    shown_classes,
    wilson,
)
from training.summary.mistakes import mistake_lines
from training.summary.parts import CONFUSION, CURVES, RELIABILITY, how_to_go_on, how_trained
from training.summary.unsure import unsure_lines

OVERFITS = 0.1  # difference of training and held-out top-1 from which overfitting is reported
_EPOCH_COLUMNS = (
    "epoch",
    "loss",
    "held-out loss",
    "training top-1",
    "held-out top-1",
    "learning rate",
    "images/s",
    "time",
)
ALL_CLASSES = 20  # most classes for which the README lists all
_WORST, _BEST, _PAIRS = 10, 3, 10  # numbers of classes listed otherwise, and of confused pairs
_CLASS_COLUMNS = ("class", "images", "right", "top-1", "precision", "F1", "most often taken for")
_PAIR_COLUMNS = ("true class", "taken for", "images", "share of the true class")


def readme(facts: RunFacts, epochs: Sequence[Epoch], confusion: Matrix) -> str:
    """Returns the README of a run as GitHub's Markdown; see ``write_summary`` for the arguments."""
    results = class_results(confusion, facts.labels)
    known_first = [f"- {line}" for line in findings(facts, epochs, confusion, results)]
    lines = [
        f"# {escape(facts.model)} on {escape(facts.data)}: {_final(facts, results)}",
        "",
        *_opening(facts, results, epochs[facts.kept_epoch - 1]),
        "",
        *(["## Know this first", "", *known_first, ""] if known_first else []),
        f"![Loss, top-1 and learning rate over the epochs]({CURVES})",
        "",
        *table(
            _EPOCH_COLUMNS,
            _epoch_rows(facts.kept_epoch, epochs, facts.chosen_by),
            numeric=_EPOCH_COLUMNS[1:],
        ),
        "",
        "Training figures are of the images as they were augmented, while the weights still "
        "changed; held-out figures are of the plain images after the epoch. So training can look "
        "the worse of the two.",
        "",
        *how_trained(facts),
        "## Each class",
        "",
        *class_lines(results),
        "",
        "## What is taken for what",
        "",
        *pair_lines(confusion, results),
        "",
        f"![Confusion matrix of the held-out images]({CONFUSION})",
        "",
        " ".join(f"{line}." for line in confusion_caption(confusion)),
        "",
        *mistake_lines(facts.mistakes),
        *_scores(facts.calibration),
        *unsure_lines(facts.abstaining, has_test=facts.tested is not None),
        *how_to_go_on(facts),
    ]
    return "\n".join(lines)


def reached(results: Sequence[ClassResult]) -> str:
    """Returns a text: the held-out top-1 with its interval and number of images."""
    return _top1(*_totals(results), "held-out image")


def _final(facts: RunFacts, results: Sequence[ClassResult]) -> str:
    """Returns the main figure: top-1 on the test images if there are any, else on held-out ones."""
    return _top1(*facts.tested, "test image") if facts.tested else reached(results)


def _top1(right: int, images: int, of: str) -> str:
    if not images:
        return f"top-1 {MISSING}"
    low, high = wilson(right, images)
    return (
        f"{percent(right / images)} top-1 on {plural(images, of)} "
        f"(95 % interval {low * 100:.1f} to {percent(high)})"
    )


def _totals(results: Sequence[ClassResult]) -> tuple[int, int]:
    return sum(result.right for result in results), sum(result.images for result in results)


def _opening(facts: RunFacts, results: Sequence[ClassResult], kept: Epoch) -> list[str]:
    right, images = _totals(results)
    what = (
        f"An image classifier for {plural(len(results), 'class', 'classes')}: the network "
        f"{escape(facts.model)}, trained on {plural(facts.train_images, 'image')} of "
        f"{escape(facts.data)}."
    )
    if not images:
        return [f"{what} No image was held out, so nobody knows how good it is."]
    largest = max(result.images for result in results)
    return [
        f"{what} It classifies {right:,} of {plural(images, 'held-out image')} correctly. Always "
        f"answering the largest class would get {percent(largest / images)}.",
        "",
        f"With every class counting the same, whatever its number of images: "
        f"{', '.join(_macro(results, kept))}.{_chosen(facts)}",
        "",
        *_tested(facts, results),
        "The interval (Wilson's) covers the chance of which images were held out, nothing else: "
        "images from another camera or place can do worse.",
    ]


def _macro(results: Sequence[ClassResult], kept: Epoch) -> list[str]:
    figures = [
        f"macro-F1 {percent(macro_f1(results))}",
        f"balanced accuracy {percent(balanced_accuracy(results))}",
    ]
    if kept.val_top5 is not None:
        figures.append(f"and, of all images, top-5 {percent(kept.val_top5)}")
    return figures


def _chosen(facts: RunFacts) -> str:
    """Returns a sentence on how the kept epoch was chosen, if it was, else nothing."""
    if facts.chosen_by is None:
        return ""
    best = MONITORS[facts.chosen_by].name
    return f" Epoch {facts.kept_epoch} was kept, as it has the best {best}."


def _tested(facts: RunFacts, results: Sequence[ClassResult]) -> list[str]:
    """Returns lines on the test images, if the figure in the title is of them."""
    if not facts.tested:
        return []
    right, images = _totals(results)
    gap = right / images - facts.tested.top1
    direction = "above" if gap >= 0 else "below"
    how = (
        f"It was chosen as the best of the epochs by its {MONITORS[facts.chosen_by].name}, which "
        "makes held-out figures too good"
        if facts.chosen_by
        else "It is the last epoch and was not chosen by it"
    )
    return [
        f"The figure in the title is of {plural(facts.tested.images, 'test image')}, by which "
        "nothing was chosen; all others are of the held-out images, by which each epoch was "
        f"judged. The held-out top-1 of the kept epoch, {percent(right / images)}, is "
        f"{points(abs(gap))} {direction} that of the test images. {how}.",
        "",
    ]


def _epoch_rows(kept_epoch: int, epochs: Sequence[Epoch], chosen_by: str | None) -> list[list[str]]:
    """Returns the table rows of the kept epoch, and of the best if it is another one."""
    kept = epochs[kept_epoch - 1]
    best = best_epoch(epochs, kept, chosen_by)
    rows = [("kept", kept)] if best is kept else [("best", best), ("kept", kept)]
    return [
        [
            f"{epoch.epoch} of {len(epochs)} ({name})",
            number(epoch.loss, "{:.3f}".format),
            number(epoch.val_loss, "{:.3f}".format),
            percent(epoch.train_top1),
            percent(epoch.val_top1),
            f"{epoch.learning_rate:.2g}",
            f"{epoch.images_per_second:,.0f}",
            duration(epoch.seconds),
        ]
        for name, epoch in rows
    ]


def findings(
    facts: RunFacts, epochs: Sequence[Epoch], confusion: Matrix, results: Sequence[ClassResult]
) -> Iterable[str]:
    """Yields the warnings at the start of the README."""
    kept = epochs[facts.kept_epoch - 1]
    best = best_epoch(epochs, kept, facts.chosen_by)
    for doubt in doubts(facts, epochs, confusion):
        yield f"**{doubt[0].upper()}{doubt[1:]}.**"
    if best is not kept:
        yield (
            f"**Epoch {kept.epoch}, which was kept, is not the best.** Epoch {best.epoch} reached "
            f"{percent(best.val_top1)} held-out top-1, {points(best.val_top1 - kept.val_top1)} "
            "more. --recipe.monitor top1 would have kept it."
        )
    gap = kept.train_top1 - kept.val_top1
    if gap > OVERFITS and not chance(confusion):
        yield (
            f"**It overfits.** Top-1 is {percent(kept.train_top1)} in training and "
            f"{percent(kept.val_top1)} held out, {points(gap)} less. More images or stronger "
            "augmentation may help."
        )
    if few := sum(result.few for result in results):
        yield (
            f"**Few held-out images.** {few:,} of {plural(len(results), 'class', 'classes')} "
            f"{'has' if few == 1 else 'have'} fewer than {FEW}, marked *few* below. There, one "
            f"image more or less moves top-1 by more than {100 // FEW} points."
        )


def doubts(facts: RunFacts, epochs: Sequence[Epoch], confusion: Matrix) -> Iterable[str]:
    """Yields a sentence for each reason not to use the network yet."""
    if words := chance(confusion):
        yield words
    if facts.weights_top1 is None:
        return
    average, images = epochs[-1].val_top1, facts.val_images
    if average < wilson(round(facts.weights_top1 * images), images)[0]:
        yield (
            f"the average of the weights, which was kept, lags behind them: {percent(average)} "
            f"held-out top-1 in the last epoch, where the weights themselves reach "
            f"{percent(facts.weights_top1)}; train for more epochs, or with a smaller ema, or none"
        )


def best_epoch(epochs: Sequence[Epoch], kept: Epoch, chosen_by: str | None = None) -> Epoch:
    """Returns the best epoch; of ties, the kept one, else the first.

    It is the kept one if that was chosen, by whichever figure, else that with the best top-1.
    """
    return kept if chosen_by else max([kept, *epochs], key=MONITORS["top1"].better)


def class_lines(results: Sequence[ClassResult]) -> list[str]:
    """Returns Markdown on every class, or on the worst and the best where there are many."""
    meaning = (
        "Top-1 of a class, its recall, is the share of its images classified correctly. "
        "Precision is the share of the images given its name that bear it. F1 is the harmonic mean "
        "of the two. All classes are in "
        f"[{PER_CLASS}]({PER_CLASS})."
    )
    if len(results) <= ALL_CLASSES:
        return [*_class_table(results, results), "", meaning]
    # Of classes with equal top-1, those with more images come first.
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
                number(row.f1, percent),
                "none" if other is None else f"{escape(other)} ({plural(row.times, 'time')})",
            ]
        )
    return table(_CLASS_COLUMNS, cells, numeric=_CLASS_COLUMNS[1:6])


def pair_lines(confusion: Matrix, results: Sequence[ClassResult]) -> list[str]:
    """Returns Markdown on the pairs of classes that are most often confused."""
    pairs = confused_pairs(confusion)
    if not confusion.any():
        return ["No image was held out."]
    if not pairs:
        return ["Nothing: every held-out image was classified correctly."]
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


def _scores(calibration: Calibration | None) -> list[str]:
    """Returns the section on calibration; nothing where it was not measured."""
    if calibration is None:
        return []
    fitted = plural(calibration.fitted_on, "held-out image")
    before, after = (
        percent(calibration_error(bins)) for bins in (calibration.before, calibration.after)
    )
    of = plural(calibration.tested_on, "test image") if calibration.tested_on else fitted
    lines = [
        "The score of an answer is the softmax of its logits. The expected calibration error, by "
        "how much scores and the share of right answers differ, is",
    ]
    if calibration.reason:
        lines = [f"{lines[0]} {before} on {of}. Scores are as trained: {calibration.reason}."]
    else:
        how = (
            "by which neither weights nor temperature were chosen"
            if calibration.tested_on
            else "each with a temperature fitted on four fifths of the others; the epoch was "
            "judged by the same images"
        )
        lines = [
            f"{lines[0]} {before} as trained, and {after} with logits divided by a temperature of "
            f"{calibration.temperature:.3f}. It was fitted on {fitted} and is part of the last "
            f"layer on export; it changes scores, and no answer. These figures are of {of}, {how}."
        ]
    return ["## Scores", "", *lines, "", f"![Share of right answers by score]({RELIABILITY})", ""]


def confusion_caption(confusion: Matrix) -> list[str]:
    """Returns the caption of the picture: sentences without full stops."""
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
