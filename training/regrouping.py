"""Better parts of groups of uneven size: units are moved and swapped, from several starts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

BOUNDS = (0.5, 2.0)  # times its share: what a part may get for the sake of a label
_TRIES = 6  # starts, of which the best result is kept
_STIRRED = 0.2  # of the units, moved at random before another try
_FEW = 500  # units, up to which they are swapped and tried again: time grows by their square
_PASSES = 20  # most rounds of a try
_LEAST = 1e-9  # gain of a step
# What counts before what: a label that no image teaches, a share beyond its bound, a label without
# an image in a part, distance from the shares (at most 2 for a part).
_UNTAUGHT, _BEYOND, _LOST, _OFF = 1e6, 1e3, 1.0, 0.1


def improved(
    parts: Ints, counts: Ints, sizes: Ints, wanted: Floats, shares: Sequence[float]
) -> Ints:
    """Returns the part of each unit, int64 (U,), after moves and swaps that make the parts better.

    Better is, in this order: each label is in what is learned from (of two parts in the first, of
    more not all in one); each part has between half and twice its share of the images; each part
    has each label; images and labels are near to their shares. Units of one image stay.

    Args:
        parts: int64 (U,), the part of each unit to begin with.
        counts: int64 (U, C), images of each unit with each label; the last one is "no label".
        sizes: int64 (U,), images of each unit.
        wanted: float64 (P, C), images of each label that each part is to have.
        shares: fraction of the images for each part.
    """
    search = _Search(
        counts,
        sizes,
        wanted,
        np.asarray(shares),
        np.maximum(counts.sum(axis=0), 1),
        (counts[:, :-1] > 0).sum(axis=0) >= len(shares),
    )
    best, least = search.climbed(parts)
    random = np.random.default_rng(0)
    for _ in range(_TRIES - 1 if len(sizes) <= _FEW else 0):
        if least < _LOST:  # nothing is lost or beyond its bound
            break
        stirred = best.copy()
        some = random.random(len(sizes)) < _STIRRED
        stirred[some] = random.integers(0, len(shares), int(some.sum()))
        found, cost = search.climbed(stirred)
        if cost < least:
            best, least = found, cost
    return best


@dataclass(frozen=True, slots=True)
class _Search:
    """Units with their labels, to be dealt to parts; see :func:`improved`.

    Attributes:
        totals: int64 (C,), images with each label.
        several: bool (C - 1,), whether each part can have the label.
    """

    counts: Ints
    sizes: Ints
    wanted: Floats
    shares: Floats
    totals: Ints
    several: npt.NDArray[np.bool_]

    def climbed(self, start: Ints) -> tuple[Ints, float]:
        """Returns the parts after all moves and swaps that lower the cost, and that cost."""
        parts, numbers = start.copy(), range(len(self.shares))
        has = np.stack([self.counts[parts == part].sum(axis=0) for part in numbers])
        images = np.array([self.sizes[parts == part].sum() for part in numbers])
        order = np.argsort(-self.sizes, kind="stable")
        for _ in range(_PASSES):
            before = parts.copy()
            for unit in order[self.sizes[order] > 1].tolist():
                at = int(parts[unit])
                steps = [self._step(unit, part, parts, has, images) for part in numbers]
                gain, part, other = max(steps)
                if gain < _LEAST:
                    continue
                for one, source, target in ((unit, at, part), (other, part, at)):
                    if one >= 0:
                        parts[one] = target
                        has[source] -= self.counts[one]
                        has[target] += self.counts[one]
                        images[source] -= self.sizes[one]
                        images[target] += self.sizes[one]
            if (parts == before).all():
                break
        return parts, sum(float(self._cost(each, has[each], images[each])) for each in numbers)

    def _step(
        self, unit: int, part: int, parts: Ints, has: Ints, images: Ints
    ) -> tuple[float, int, int]:
        """Returns what the best step of ``unit`` to ``part`` gains, and the unit it is swapped for.

        That is -1 for none.
        """
        at = int(parts[unit])
        if at == part:
            return 0.0, part, -1
        others = np.flatnonzero(parts == part) if len(self.sizes) <= _FEW else np.array([], int)
        back = np.vstack([np.zeros_like(has[:1]), self.counts[others]])  # none, or one of them
        size = np.concatenate([[0], self.sizes[others]])
        given, room = self.counts[unit] - back, self.sizes[unit] - size
        now = self._cost(part, has[part], images[part]) + self._cost(at, has[at], images[at])
        then = self._cost(part, has[part] + given, images[part] + room)
        then = then + self._cost(at, has[at] - given, images[at] - room)
        best = int(then.argmin())
        return float(now - then[best]), part, int(others[best - 1]) if best else -1

    def _cost(self, part: int, has: Ints, images: Ints) -> Floats:
        """Returns the cost of a part that has so many images of each label (..., C), and in all."""
        off = ((self.wanted[part] - has) / self.totals) ** 2
        wanted, share = self.shares[part], images / self.sizes.sum()
        cost = _OFF * (off.mean(axis=-1) + (share - wanted) ** 2)
        if part == 0 and len(self.shares) == 2:
            return np.asarray(cost)
        labels = has[..., :-1]
        lost = ((labels == 0) & self.several).sum(axis=-1)
        untaught = (labels >= self.totals[:-1]).sum(axis=-1)
        low, high = (bound * wanted for bound in BOUNDS)
        beyond = np.maximum(np.maximum(low - share, share - high), 0)
        return np.asarray(cost + _LOST * lost + _UNTAUGHT * untaught + _BEYOND * beyond)
