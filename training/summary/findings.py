"""What must be known of a run before its figures are believed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from report.format import percent, plural, points
from training.history import Epoch
from training.summary.confusion import FEW, ClassResult

OVERFITS = 0.1  # top-1 in training above held-out top-1 by more than this is remarked on


def findings(
    kept_epoch: int, epochs: Sequence[Epoch], results: Sequence[ClassResult]
) -> Iterable[str]:
    """Yields what must be known before the figures are believed."""
    kept = epochs[kept_epoch - 1]
    best = best_epoch(epochs)
    if best is not kept:
        yield (
            f"**Epoch {kept.epoch}, which was kept, is not the best.** Epoch {best.epoch} reached "
            f"{percent(best.val_top1)} held-out top-1, {points(best.val_top1 - kept.val_top1)} "
            "more. Early stop (patience, in the recipe) would have kept it."
        )
    gap = kept.train_top1 - kept.val_top1
    if gap > OVERFITS:
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


def best_epoch(epochs: Sequence[Epoch]) -> Epoch:
    """Returns the epoch of the highest held-out top-1; of several the first, which is kept."""
    return max(epochs, key=lambda epoch: epoch.val_top1)
