"""Findings that must be known before the figures of a run are believed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from report.format import percent, plural, points
from training.history import Epoch
from training.summary.confusion import FEW, ClassResult, Matrix, chance, wilson

if TYPE_CHECKING:
    from training.summary.facts import RunFacts

OVERFITS = 0.1  # top-1 in training above held-out top-1 by more than this is remarked on


def findings(
    facts: RunFacts, epochs: Sequence[Epoch], confusion: Matrix, results: Sequence[ClassResult]
) -> Iterable[str]:
    """Yields what must be known before the figures are believed."""
    kept = epochs[facts.kept_epoch - 1]
    best = best_epoch(epochs, kept)
    for doubt in doubts(facts, epochs, confusion):
        yield f"**{doubt[0].upper()}{doubt[1:]}.**"
    if best is not kept:
        yield (
            f"**Epoch {kept.epoch}, which was kept, is not the best.** Epoch {best.epoch} reached "
            f"{percent(best.val_top1)} held-out top-1, {points(best.val_top1 - kept.val_top1)} "
            "more. Early stop (patience, in the recipe) would have kept it."
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
    """Yields, a sentence each, why the network should not be used as it is."""
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


def best_epoch(epochs: Sequence[Epoch], kept: Epoch) -> Epoch:
    """Returns the epoch of the highest held-out top-1: of several the one kept, else the first."""
    return max([kept, *epochs], key=lambda epoch: epoch.val_top1)
