"""Batches worked on by several threads, with the results in order."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

AHEAD = 4  # batches per thread: what a slow image in front lets the others do meanwhile


def in_order(
    work: Callable[[Sequence[T]], Iterable[R]], items: Iterable[T], *, threads: int, size: int
) -> Iterator[R]:
    """Yields the results of ``work`` on batches of ``items``, in the order of ``items``.

    No more than :data:`AHEAD` batches per thread are taken from ``items`` beyond what was yielded.
    An exception of ``work`` ends it; so does closing it, once the calls that run have returned.

    Args:
        work: takes a batch, returns its results; called from several threads at once.
        items: taken from in the thread that iterates.
        threads: how many batches are worked on at once.
        size: items in a batch.
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
