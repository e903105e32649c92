"""Writes the summary of a finished run: README.md, two pictures, a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.files import write_whole
from report.format import one_line
from training.records import Epoch, RunFacts
from training.summary.confusion import (
    PER_CLASS,
    Matrix,
    class_results,
    per_class_csv,
    shown_classes,
)
from training.summary.label_figures import LabelFigures, per_label_csv
from training.summary.mistakes import MISTAKES, mistakes_png
from training.summary.parts import CONFUSION, CURVES, README, RELIABILITY
from training.summary.readme import best_epoch, confusion_caption, reached, readme
from training.summary.several import best_by_map, several_readme
from training.summary.several import reached as several_reached


def write_summary(
    folder: Path, facts: RunFacts, epochs: Sequence[Epoch], confusion: Matrix
) -> Path:
    """Writes the summary of a finished run to ``folder`` and returns the path of README.md.

    It also writes ``curves.png``, ``confusion.png``, ``per_class.csv``, if calibration was
    measured ``reliability.png``, and if there are mistakes ``mistakes.png``.
    If an image may have several labels, there is neither ``confusion.png`` nor ``mistakes.png``.

    Args:
        folder: folder of the run.
        facts: facts of the run.
        epochs: all epochs in order; at least one.
        confusion: int64 (C, C) of held-out images with the final weights: rows are true classes,
            columns predicted ones. Not used if an image may have several labels.
    """
    from training.summary.curves import curves_png  # imports Altair
    from training.summary.matrix import confusion_png

    if facts.several:
        return _write_several(folder, facts, epochs, facts.several.held_out)
    classes = len(facts.labels)
    assert confusion.shape == (classes, classes), f"{confusion.shape} for {classes} labels"
    assert confusion.sum() == facts.val_images, f"{confusion.sum()} of {facts.val_images} images"
    assert epochs, "a run has at least one epoch"
    results = class_results(confusion, facts.labels)
    title = f"{one_line(facts.model)} on {one_line(facts.data)}"
    _write_reliability(folder, facts, f"Scores of {title}")
    kept = epochs[facts.kept_epoch - 1]
    curves = curves_png(epochs, best_epoch(epochs, kept), title, reached(results))
    picture = confusion_png(
        confusion,
        facts.labels,
        shown_classes(confusion),
        f"Confusion of {title}",
        [f"{facts.val_images:,} held-out images, the final weights", *confusion_caption(confusion)],
    )
    # Class names come from folder names, which may not be valid Unicode.
    write_whole(folder / PER_CLASS, per_class_csv(results).encode(errors="replace"))
    write_whole(folder / CURVES, curves)
    write_whole(folder / CONFUSION, picture)
    if facts.mistakes:
        write_whole(folder / MISTAKES, mistakes_png(facts.mistakes))
    return write_whole(folder / README, readme(facts, epochs, confusion).encode(errors="replace"))


def _write_several(
    folder: Path, facts: RunFacts, epochs: Sequence[Epoch], figures: LabelFigures
) -> Path:
    """Writes the summary of a run on images with several labels."""
    from training.summary.curves import curves_png

    title = f"{one_line(facts.model)} on {one_line(facts.data)}"
    _write_reliability(folder, facts, f"Scores of {title}")
    kept = epochs[facts.kept_epoch - 1]
    best = kept if facts.chosen_by else best_by_map(epochs, kept)
    write_whole(folder / CURVES, curves_png(epochs, best, title, several_reached(figures)))
    write_whole(folder / PER_CLASS, per_label_csv(figures.labels).encode(errors="replace"))
    return write_whole(folder / README, several_readme(facts, epochs).encode(errors="replace"))


def _write_reliability(folder: Path, facts: RunFacts, title: str) -> None:
    """Writes the reliability diagram, if calibration was measured."""
    from training.summary.reliability import reliability_png

    if not (calibration := facts.calibration):
        return
    panels = [("as trained", calibration.before)]
    if not calibration.reason:
        panels.append(("with the temperature", calibration.after))
    picture = reliability_png(panels, title, several=facts.several is not None)
    write_whole(folder / RELIABILITY, picture)
