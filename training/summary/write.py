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
from training.summary.mistakes import MISTAKES, mistakes_png
from training.summary.readme import (
    CONFUSION,
    CURVES,
    README,
    RELIABILITY,
    best_epoch,
    confusion_caption,
    reached,
    readme,
)


def write_summary(
    folder: Path, facts: RunFacts, epochs: Sequence[Epoch], confusion: Matrix
) -> Path:
    """Writes the summary of a finished run to ``folder`` and returns the path of README.md.

    It also writes ``curves.png``, ``confusion.png``, ``per_class.csv``, if calibration was
    measured ``reliability.png``, and if there are mistakes ``mistakes.png``.

    Args:
        folder: folder of the run.
        facts: facts of the run.
        epochs: all epochs in order; at least one.
        confusion: int64 (C, C) of held-out images with the final weights: rows are true classes,
            columns predicted ones.
    """
    from training.summary.curves import curves_png  # imports Altair
    from training.summary.matrix import confusion_png
    from training.summary.reliability import reliability_png

    classes = len(facts.labels)
    assert confusion.shape == (classes, classes), f"{confusion.shape} for {classes} labels"
    assert confusion.sum() == facts.val_images, f"{confusion.sum()} of {facts.val_images} images"
    assert epochs, "a run has at least one epoch"
    results = class_results(confusion, facts.labels)
    title = f"{one_line(facts.model)} on {one_line(facts.data)}"
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
    if calibration := facts.calibration:
        panels = [("as trained", calibration.before)]
        if not calibration.reason:
            panels.append(("with the temperature", calibration.after))
        write_whole(folder / RELIABILITY, reliability_png(panels, f"Scores of {title}"))
    return write_whole(folder / README, readme(facts, epochs, confusion).encode(errors="replace"))
