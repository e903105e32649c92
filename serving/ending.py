"""Tells what else serves in this process that the server of HTTP has begun to end.

That is before the application's lifespan ends: the server first waits for its own requests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

_told: list[Callable[[], None]] = []


@contextmanager
def told_of_the_end(tell: Callable[[], None]) -> Iterator[None]:
    """A context manager: inside, ``tell`` is called when the end begins, in its event loop."""
    _told.append(tell)
    try:
        yield
    finally:
        _told.remove(tell)


def begin_the_end() -> None:
    """Says that the end begins; it is called in the event loop."""
    for tell in list(_told):
        tell()
