"""Limits the number of concurrent requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from serving.uploads import Refusal

BUSY_S = 1  # when to come again: a full queue is worked off in less


class Slots:
    """A count of requests that are being read, wait or are worked on; used in one event loop.

    It bounds what uploads hold in memory, and tells a client before it sends its image.
    """

    def __init__(self, count: int) -> None:
        self._free = self._all = count

    @contextmanager
    def taken(self, count: int = 1) -> Iterator[None]:
        """Yields while ``count`` slots are taken, or all there are.

        Raises:
            Refusal: fewer are free.
        """
        count = min(count, self._all)
        if self._free < count:
            raise busy()
        self._free -= count
        try:
            yield
        finally:
            self._free += count


def busy() -> Refusal:
    """Returns the refusal of a request that does not fit."""
    return Refusal(
        429,
        "busy",
        f"the queue is full; come again in {BUSY_S} s",
        headers={"retry-after": str(BUSY_S)},
    )
