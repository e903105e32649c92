"""The slots of requests: how many may be in progress, and how many of them for each model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from serving.errors import busy


class Slots:
    """Limits the requests being read, queued or processed; for use in one event loop.

    It bounds the memory of uploads, and can refuse a request before its image is sent. Each model
    has a :meth:`share`. Half of the slots are divided among them, and kept for each; the rest are
    for whoever comes. So a flooded model leaves some to the others. A lone model has all.
    """

    def __init__(self, count: int) -> None:
        self._free = self._all = count
        self._shares: list[Share] = []

    def share(self) -> Share:
        """Returns the slots of a further model."""
        share = Share(self)
        self._shares.append(share)
        return share

    def drop(self, share: Share) -> None:
        """Ends a share that has no request any more."""
        self._shares.remove(share)

    def take(self, share: Share, count: int) -> int:
        """Returns how many slots were taken: ``count``, or all that one model can have.

        Raises:
            Refusal: fewer are free, or the rest is kept for others.
        """
        kept, most = 0, self._all
        if len(self._shares) > 1:
            kept = self._all // (2 * len(self._shares))
            most -= kept * (len(self._shares) - 1)
        count = min(count, most)
        left = self._free - count
        if left < 0:
            raise busy()
        if kept and share.used + count > kept:
            owed = sum(max(0, kept - each.used) for each in self._shares if each is not share)
            if left < owed:
                raise busy()
        self._free = left
        share.used += count
        return count

    def give_back(self, share: Share, count: int) -> None:
        """Frees ``count`` slots."""
        self._free += count
        share.used -= count


class Share:
    """The slots of one model.

    Attributes:
        used: how many its requests hold; 0 says that none is in progress.
    """

    __slots__ = ("_slots", "used")

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self.used = 0

    @contextmanager
    def taken(self, count: int = 1) -> Iterator[None]:
        """A context manager that takes ``count`` slots, at most all that this model can have.

        Raises:
            Refusal: fewer slots are free.
        """
        count = self._slots.take(self, count)
        try:
            yield
        finally:
            self._slots.give_back(self, count)
