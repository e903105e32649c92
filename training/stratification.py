"""Parts of images with several labels, with the same share of each label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from core.errors import UserError
from training.data import ImageData, Sample
from training.grouping import check_several, units_of
from training.identity import digests_of
from training.regrouping import improved
from training.scan import some


def hold_out_sets(
    data: ImageData, samples: Sequence[Sample], names: Sequence[str] | None, share: float
) -> tuple[list[Sample], list[Sample]]:
    """Returns training and held-out samples; about ``share`` of each label, at least one image.

    They follow from the images' contents, not their names. Equal images are in the same part, as
    are those of a group. A note names labels without a held-out image.

    Args:
        data: their data set, with the digests of files already read.
        samples: images with any number of labels.
        names: name of each image's group; None without groups.
        share: fraction to hold out, in (0, 1).

    Raises:
        UserError: nothing can be held out without leaving none of some label to learn from.
    """
    if names is not None:
        check_several(names)
    units = units_of(digests_of(samples, data.digests), names)
    targets = data.targets(samples)
    held = deal(targets, units, (1 - share, share))[units] == 1
    if not held.any():
        what = "images" if names is None else "groups"
        raise UserError(
            f"{data.name}: none of its {units.max() + 1} {what} can be held out, as each has a "
            "label that no other has; add images"
        )
    lost = targets.any(axis=0) & ~targets[held].any(axis=0)
    if lost.any():
        labels = some([data.labels[at] for at in np.flatnonzero(lost)])
        more = "different images" if names is None else "groups"
        data.scan.note(
            f"warning: no image of {labels} is held out, as that needs more {more} with it"
        )
    parts: tuple[list[Sample], list[Sample]] = [], []
    for sample, out in zip(samples, held.tolist(), strict=True):
        parts[out].append(sample)
    return parts


def deal(
    targets: npt.NDArray[np.bool_], units: npt.NDArray[np.int64], shares: Sequence[float]
) -> npt.NDArray[np.int64]:
    """Deals units to parts by iterative stratification, and returns the part of each, int64 (U,).

    The label of which the fewest units are left is dealt first, its largest units first: each goes
    to the part that lacks most of the label, of ties to that which lacks most images. So rare
    labels get their shares before frequent ones fill the parts. Source: Sechidis, Tsoumakas and
    Vlahavas, On the Stratification of Multi-Label Data, 2011, Algorithm 1; of equal units the first
    is taken, not a random one. Where a label is in as many units as there are parts, each part has
    one, unless that takes another label from a part; of two parts, the first has every label.
    Images without labels are dealt as if that was a label. Units of several images are moved and
    swapped afterwards: see :func:`training.regrouping.improved`.

    Args:
        targets: bool (N, C), whether each image has each label.
        units: int64 (N,), the unit of each image, from 0; a unit stays together.
        shares: fraction of the images for each part; they sum to 1.
    """
    sets = np.column_stack([targets, ~targets.any(axis=1)])
    counts = np.zeros((int(units.max()) + 1, sets.shape[1]), dtype=np.int64)
    np.add.at(counts, units, sets)
    sizes, totals = np.bincount(units), counts.sum(axis=0)
    spread = (counts > 0).sum(axis=0) >= len(shares)  # labels that each part can have
    spread[-1] = False  # no label
    wanted = np.outer(shares, totals)  # (parts, labels)
    if len(shares) == 2:  # whole images, and one at least
        wanted[1, :-1] = np.where(spread, np.maximum(np.round(wanted[1]), 1), 0)[:-1]
        wanted[0] = totals - wanted[1]
    lacks, rooms = wanted.copy(), np.asarray(shares) * sizes.sum()
    parts = np.full(len(sizes), -1, dtype=np.int64)
    left = counts > 0
    while (units_left := left.sum(axis=0)).any():
        label = int(np.where(units_left, units_left, len(sizes) + 1).argmin())
        those = np.flatnonzero(left[:, label])
        for at, unit in enumerate(those[np.argsort(-sizes[those], kind="stable")]):
            without = lacks[:, label] == wanted[:, label]  # parts with none of it
            last = spread[label] and len(those) - at <= without.sum()
            first = without & last  # those that would stay without it
            part = int(np.lexsort((rooms, lacks[:, label], first))[-1])
            parts[unit] = part
            lacks[part] -= counts[unit]
            rooms[part] -= sizes[unit]
            left[unit] = False
    dealt = _Dealt(counts, sizes, parts, wanted, lacks, rooms)
    dealt.spread(np.flatnonzero(spread))
    if len(shares) == 2:
        dealt.learn_all()
    if sizes.max() > 1:
        return improved(parts, counts, sizes, wanted, shares)
    return parts


@dataclass(frozen=True, slots=True)
class _Dealt:
    """Units in parts, to move some.

    Attributes:
        counts: int64 (U, C), images of each unit with each label.
        sizes: int64 (U,), images of each unit.
        parts: int64 (U,), the part of each unit.
        wanted: float64 (P, C), images of each label that each part is to have.
        lacks: float64 (P, C), those of them that it has not; below 0: too many.
        rooms: float64 (P,), images that each part lacks.
    """

    counts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    parts: npt.NDArray[np.int64]
    wanted: npt.NDArray[np.float64]
    lacks: npt.NDArray[np.float64]
    rooms: npt.NDArray[np.float64]

    def spread(self, labels: npt.NDArray[np.int64]) -> None:
        """Gives each part a unit with each of ``labels``, if that takes no label from another."""
        moved = True
        while moved:  # a move may make room for another; each adds a label to a part
            moved = False
            for label in labels:
                for part in np.flatnonzero(self._has()[:, label] == 0):
                    having = np.flatnonzero(self.counts[:, label]).tolist()
                    if free := [unit for unit in having if self._leaves_all(unit)]:
                        self._move(self._smallest(free), int(part))
                        moved = True

    def learn_all(self) -> None:
        """Gives the first part each label, though another part may lose one by that."""
        for label in np.flatnonzero((self._has()[0] == 0) & (self.counts.sum(axis=0) > 0)):
            if label < self.counts.shape[1] - 1 and self._has()[0, label] == 0:
                self._move(self._smallest(np.flatnonzero(self.counts[:, label]).tolist()), 0)

    def _smallest(self, units: Sequence[int]) -> int:
        return min(units, key=lambda unit: int(self.sizes[unit]))

    def _has(self) -> npt.NDArray[np.float64]:
        return np.round(self.wanted - self.lacks, 6)

    def _leaves_all(self, unit: int) -> bool:
        """Returns whether the unit's part has other images of each of the unit's labels."""
        count, part = self.counts[unit], self.parts[unit]
        has = self.wanted[part] - self.lacks[part]
        return bool((has - count > 0.5)[:-1][count[:-1] > 0].all())

    def _move(self, unit: int, part: int) -> None:
        for at, sign in ((self.parts[unit], 1), (part, -1)):
            self.lacks[at] += sign * self.counts[unit]
            self.rooms[at] += sign * self.sizes[unit]
        self.parts[unit] = part
