"""Processes batches in several threads and yields the results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 4  # batches per thread that may be processed ahead of a slow one


def in_order(
    work: Callable[[Sequence[T]], Iterable[R]], items: Iterable[T], *, threads: int, size: int
) -> Iterator[R]:
    """Yields the results of ``work`` on batches of ``items``, in the order of ``items``.

    At most :data:`AHEAD` batches per thread are read from ``items`` ahead of the results. An
    exception of ``work`` ends it; so does closing it, after running calls have returned.

    Args:
        work: takes a batch and returns its results; called concurrently from several threads.
        items: read in the thread that iterates.
        threads: number of batches processed concurrently.
        size: number of items in a batch.
    """
    source = iter(items)
    pending: deque[Future[Iterable[R]]] = deque()
    with ThreadPoolExecutor(threads, thread_name_prefix="predict") as pool:
        try:
            while True:
                while len(pending) < AHEAD * threads and (batch := list(islice(source, size))):
                    pending.append(pool.submit(work, batch))
                if not pending:
                    return
                yield from pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
