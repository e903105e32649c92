"""Parts of images with several labels, with the same share of each label."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from training.data import ImageData, Sample
from training.grouping import units_of
from training.identity import digests_of


def hold_out_sets(
    data: ImageData, samples: Sequence[Sample], names: Sequence[str] | None, share: float
) -> tuple[list[Sample], list[Sample]]:
    """Returns training and held-out samples; about ``share`` of each label, at least one image.

    They follow from the images' contents, not their names. Equal images are in the same part, as
    are those of a group.

    Args:
        data: their data set, with the digests of files already read.
        samples: images with any number of labels.
        names: name of each image's group; None without groups.
        share: fraction to hold out, in (0, 1).
    """
    units = units_of(digests_of(samples, data.digests), names)
    held = deal(data.targets(samples), units, (1 - share, share))[units] == 1
    parts: tuple[list[Sample], list[Sample]] = [], []
    for sample, out in zip(samples, held.tolist(), strict=True):
        parts[out].append(sample)
    return parts


def deal(
    targets: npt.NDArray[np.bool_], units: npt.NDArray[np.int64], shares: Sequence[float]
) -> npt.NDArray[np.int64]:
    """Deals units to parts by iterative stratification, and returns the part of each, int64 (U,).

    The label of which the fewest units are left is dealt first: each unit with it goes to the part
    that lacks most of it, of ties to that which lacks most images. So rare labels get their shares
    before frequent ones fill the parts. Source: Sechidis, Tsoumakas and Vlahavas, On the
    Stratification of Multi-Label Data, 2011, Algorithm 1; units are taken in their order, not at
    random, and one of two parts or more has at least one image of each label. Images without labels
    are dealt as if that was a label.

    Args:
        targets: bool (N, C), whether each image has each label.
        units: int64 (N,), the unit of each image, from 0; a unit stays together.
        shares: fraction of the images for each part; they sum to 1.
    """
    sets = np.column_stack([targets, ~targets.any(axis=1)])
    counts = np.zeros((int(units.max()) + 1, sets.shape[1]), dtype=np.int64)
    np.add.at(counts, units, sets)
    sizes = np.bincount(units)
    lacks = np.outer(shares, counts.sum(axis=0))  # (parts, labels)
    if len(shares) == 2:  # whole images, and one at least
        lacks[1] = np.maximum(np.round(lacks[1]), counts.sum(axis=0) > 0)
        lacks[0] = counts.sum(axis=0) - lacks[1]
    rooms = np.asarray(shares) * sizes.sum()
    parts = np.full(len(sizes), -1, dtype=np.int64)
    left = counts > 0
    while (totals := left.sum(axis=0)).any():
        label = int(np.where(totals, totals, len(sizes) + 1).argmin())
        for unit in np.flatnonzero(left[:, label]):
            part = int(np.lexsort((rooms, lacks[:, label]))[-1])
            parts[unit] = part
            lacks[part] -= counts[unit]
            rooms[part] -= sizes[unit]
            left[unit] = False
    return parts
