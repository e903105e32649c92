"""The README of a run on images with any number of labels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from report.format import duration, number, percent, plural, points
from report.markdown import escape, table
from training.records import MONITORS, Epoch, RunFacts, SeveralLabels
from training.summary.calibration import Calibration, calibration_error
from training.summary.confusion import FEW, PER_CLASS
from training.summary.label_figures import LabelFigures
from training.summary.parts import CURVES, RELIABILITY, how_to_go_on, how_trained

_EPOCH_COLUMNS = (
    "epoch",
    "loss",
    "held-out loss",
    "held-out mAP",
    "macro-F1 at 0.5",
    "learning rate",
    "images/s",
    "time",
)
_ALL = 20  # most labels of which all are listed; else as many of the lowest average precision
_COLUMNS = ("label", "images", "AP", "threshold", "given", "right", "precision", "recall", "F1")


def several_readme(facts: RunFacts, epochs: Sequence[Epoch]) -> str:
    """Returns the README of a run as GitHub's Markdown; see ``write_summary``."""
    several = facts.several
    assert several is not None
    shown = several.tested or several.held_out
    of = "test image" if several.tested else "held-out image"
    known_first = [f"- {line}" for line in _findings(several, epochs, facts)]
    lines = [
        f"# {escape(facts.model)} on {escape(facts.data)}: {percent(shown.mean_ap)} mAP on "
        f"{plural(shown.images, of)}",
        "",
        f"A classifier that gives an image any number of {plural(len(facts.labels), 'label')}: the "
        f"network {escape(facts.model)}, trained on {plural(facts.train_images, 'image')} of "
        f"{escape(facts.data)}. Each label has a score by itself; they do not sum to 1. An image "
        "is given all labels with a score above their threshold.",
        "",
        *_figures(several),
        "",
        "mAP is the mean over the labels of the average precision, which needs no thresholds; "
        f"scores by chance would reach {percent(shown.chance)}. Micro mAP and micro-F1 are of all "
        "pairs of image and label together. Exact: every label of an image is right."
        f"{_chosen(several, facts)}",
        "",
        *(["## Know this first", "", *known_first, ""] if known_first else []),
        f"![Loss, mAP and learning rate over the epochs]({CURVES})",
        "",
        *_epochs(facts, epochs),
        "",
        *how_trained(facts),
        "## Each label",
        "",
        *_labels(several.held_out, facts.recipe.get("answer_precision")),
        "",
        *_scores(facts.calibration),
        *how_to_go_on(facts),
    ]
    return "\n".join(lines)


def reached(figures: LabelFigures) -> str:
    """Returns a text: the mAP with its number of images."""
    return f"{percent(figures.mean_ap)} mAP on {plural(figures.images, 'held-out image')}"


def best_by_map(epochs: Sequence[Epoch], kept: Epoch) -> Epoch:
    """Returns the epoch with the best mAP; of ties, the kept one, else the first."""
    return max([kept, *epochs], key=MONITORS["map"].better)


def _figures(several: SeveralLabels) -> list[str]:
    columns = {"held-out": several.held_out}
    if several.tested:
        columns["test"] = several.tested
    each = columns.values()
    rows = [
        ["images", *(f"{figures.images:,}" for figures in each)],
        ["mAP", *(percent(figures.mean_ap) for figures in each)],
        ["micro mAP", *(percent(figures.micro_ap) for figures in each)],
        ["macro-F1", *(percent(figures.macro_f1) for figures in each)],
        ["micro-F1", *(percent(figures.micro_f1) for figures in each)],
        ["exact", *(percent(figures.exact) for figures in each)],
    ]
    return table(("figure", *columns), rows, numeric=tuple(columns))


def _chosen(several: SeveralLabels, facts: RunFacts) -> str:
    """Returns sentences on what was chosen by which images."""
    said = ""
    if facts.chosen_by is not None:
        best = MONITORS[facts.chosen_by].name
        said = f" Epoch {facts.kept_epoch} was kept, as it has the best {best}."
    if several.tested:
        gap = several.held_out.mean_ap - several.tested.mean_ap
        direction = "above" if gap >= 0 else "below"
        return (
            f"{said} By the held-out images epochs were judged and thresholds chosen, by the test "
            f"images nothing: the held-out mAP is {points(abs(gap))} {direction} theirs."
        )
    return (
        f"{said} Epochs were judged and thresholds chosen by the held-out images, so their F1 is "
        "too good by a little; --test-fraction holds out others for that."
    )


def _findings(several: SeveralLabels, epochs: Sequence[Epoch], facts: RunFacts) -> Iterable[str]:
    """Yields the warnings at the start of the README."""
    figures, kept = several.held_out, epochs[facts.kept_epoch - 1]
    best = best_by_map(epochs, kept)
    if not facts.chosen_by and best.val_map is not None and kept.val_map is not None:
        gain = best.val_map - kept.val_map
        if gain > 0:
            yield (
                f"**Epoch {kept.epoch}, which was kept, is not the best.** Epoch {best.epoch} "
                f"reached {percent(best.val_map)} held-out mAP, {points(gain)} more. "
                "--recipe.monitor map would have kept it."
            )
    if several.never:
        names = ", ".join(map(escape, several.never))
        yield (
            f"**Labels that are never given.** No threshold has the wanted precision for {names} "
            "on held-out images."
        )
    if lost := [escape(each.label) for each in figures.labels if not each.images]:
        yield (
            f"**Labels without a held-out image.** None has {', '.join(lost)}: nothing is known of "
            "how well they are recognised, and their thresholds are not chosen by images."
        )
    if few := sum(each.few for each in figures.labels):
        yield (
            f"**Few held-out images.** {few:,} of {plural(len(figures.labels), 'label')} "
            f"{'has' if few == 1 else 'have'} fewer than {FEW}, marked *few* below: their "
            "thresholds and figures are rough."
        )


def _epochs(facts: RunFacts, epochs: Sequence[Epoch]) -> list[str]:
    kept = epochs[facts.kept_epoch - 1]
    best = best_by_map(epochs, kept)
    rows = [("kept", kept)] if facts.chosen_by or best is kept else [("best", best), ("kept", kept)]
    cells = [
        [
            f"{each.epoch} of {len(epochs)} ({name})",
            number(each.loss, "{:.3f}".format),
            number(each.val_loss, "{:.3f}".format),
            number(each.val_map, percent),
            number(each.val_macro_f1, percent),
            f"{each.learning_rate:.2g}",
            f"{each.images_per_second:,.0f}",
            duration(each.seconds),
        ]
        for name, each in rows
    ]
    return table(_EPOCH_COLUMNS, cells, numeric=_EPOCH_COLUMNS[1:])


def _labels(figures: LabelFigures, precision: float | None) -> list[str]:
    """Returns Markdown on every label, or on the worst where there are many."""
    chosen = "the best F1" if precision is None else f"a precision of {percent(precision)}"
    meaning = (
        f"AP is the average precision. A threshold is that of {chosen} on held-out images, of "
        "which all figures here are. Precision is the share of the images given a label that have "
        "it, recall the share of the images with it that are given it, F1 the harmonic mean of "
        f"both. All labels are in [{PER_CLASS}]({PER_CLASS})."
    )
    rows, lines = list(figures.labels), []
    if len(rows) > _ALL:
        measured = [each for each in rows if each.average_precision is not None]
        rows = sorted(measured, key=lambda each: each.average_precision or 0.0)[:_ALL]
        lines = [f"The {len(rows)} of the lowest average precision:", ""]
    cells = [
        [
            escape(each.label),
            f"{each.images:,} *few*" if each.few else f"{each.images:,}",
            number(each.average_precision, percent),
            f"{each.threshold:.3f}",
            f"{each.answered:,}",
            f"{each.right:,}",
            "never given" if each.precision is None else percent(each.precision),
            number(each.recall, percent),
            number(each.f1, percent),
        ]
        for each in rows
    ]
    return [*lines, *table(_COLUMNS, cells, numeric=_COLUMNS[1:]), "", meaning]


def _scores(calibration: Calibration | None) -> list[str]:
    """Returns the section on calibration; nothing where it was not measured."""
    if calibration is None:
        return []
    before, after = (
        percent(calibration_error(bins)) for bins in (calibration.before, calibration.after)
    )
    of = f"{calibration.tested_on or calibration.fitted_on:,} "
    of += "test images" if calibration.tested_on else "held-out images"
    said = (
        "The score of a label is the sigmoid of its logit. The expected calibration error, by how "
        "much scores and the share of the images that have the label differ, over all labels of "
        f"{of}, is {before} as trained"
    )
    if calibration.reason:
        said += f". Scores are as trained: {calibration.reason}."
    else:
        said += (
            f", and {after} with logits divided by a temperature of {calibration.temperature:.3f}, "
            "one for all labels, which is part of the last layer on export."
        )
    picture = f"![Share of images with the label by score]({RELIABILITY})"
    return ["## Scores", "", said, "", picture, ""]
