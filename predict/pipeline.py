"""Items to rows: each is read, decoded and classified, and what fails is a row with its reason."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, NamedTuple

from core.errors import UserError
from core.preprocess import ImageError, Pixels
from predict.classifier import NOT_FINITE, TOP_K, Classifier, Prediction, read_file
from predict.ordered import in_order

# When an item may be read: by any thread when its turn comes; ahead of that, because it takes long
# to come; or only before the next item is asked for.
When = Literal["any", "ahead", "now"]
READERS = 32  # of what takes long to come


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One image to classify.

    Attributes:
        path: what its row calls it.
        load: returns the bytes of its file; raises UserError if they cannot be had.
        when: when that may be called.
        relative: its path below the source it was found in, with ``/``.
        place: a path or address by which any process can read it; empty where only this one can.
        reason: why nobody can read it, where that is known; empty elsewhere.
    """

    path: str
    load: Callable[[], bytes]
    when: When = "any"
    relative: str = ""
    place: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """What came of one image.

    Attributes:
        path: its item's.
        prediction: None where there is none.
        error: why, in one line; None otherwise.
    """

    path: str
    prediction: Prediction | None = None
    error: str | None = None


class Outcome(NamedTuple):
    """What came of one item.

    Attributes:
        item: the item.
        data: the bytes of its file, if they are to be kept; None where they could not be read.
        row: its row.
    """

    item: Item
    data: bytes | None
    row: Row


def file_item(path: Path, max_bytes: int, *, shown: str = "", relative: str = "") -> Item:
    """Returns the item of a file on this machine.

    Args:
        path: of the file.
        max_bytes: no more of it is read.
        shown: what its row calls it; its path if left out.
        relative: see :class:`Item`; its name if left out.
    """
    return Item(
        path=readable(shown or str(path)),
        load=lambda: read_file(path, max_bytes),
        relative=relative or path.name,
        place=os.path.abspath(path),
    )


def failed_item(path: str, reason: str) -> Item:
    """Returns an item that cannot be read, for ``reason``."""

    def load() -> bytes:
        raise ImageError(reason)

    return Item(path=readable(path), load=load, reason=reason)


def readable(path: str) -> str:
    """Returns ``path`` as text that can be written: bytes that are not UTF-8 become ``\\xff``."""
    return os.fsencode(path).decode(errors="backslashreplace")


def classify(
    classifier: Classifier, items: Iterable[Item], *, top_k: int = TOP_K, keep: bool = False
) -> Generator[Outcome]:
    """Yields what comes of each item, in order; few are held at a time.

    A failure of the runtime itself is no item's, and is raised.

    Args:
        classifier: what classifies; its ``threads`` read, decode and infer.
        items: may be endless.
        top_k: how many classes each row names.
        keep: whether an outcome holds the bytes of its file.
    """

    def work(batch: Sequence[Item]) -> list[Outcome]:
        return _classify(classifier, batch, top_k, keep)

    with ThreadPoolExecutor(READERS, thread_name_prefix="read") as readers:
        try:
            yield from in_order(
                work,
                _begun(items, readers),
                threads=classifier.threads,
                size=classifier.batch_size,
            )
        finally:
            readers.shutdown(cancel_futures=True)


def _begun(items: Iterable[Item], readers: ThreadPoolExecutor) -> Iterator[Item]:
    """Yields ``items``, read or begun to be read where that may not wait for their turn."""
    for item in items:
        if item.when == "now":
            yield replace(item, load=_read_now(item))
        elif item.when == "ahead":
            yield replace(item, load=readers.submit(item.load).result)
        else:
            yield item


def _read_now(item: Item) -> Callable[[], bytes]:
    result: Future[bytes] = Future()
    try:
        result.set_result(item.load())
    except UserError as error:
        result.set_exception(error)
    return result.result


def _classify(
    classifier: Classifier, batch: Sequence[Item], top_k: int, keep: bool
) -> list[Outcome]:
    read: list[tuple[bytes | None, Pixels | None, str | None]] = []
    for item in batch:
        data, pixels, reason = None, None, None
        try:
            data = item.load()
            pixels = classifier.pixels(data)
        except UserError as error:
            reason = str(error)
        read.append((data if keep else None, pixels, reason))
    good = [pixels for _, pixels, _ in read if pixels is not None]
    predictions = iter(classifier.classify(good, top_k))
    outcomes = []
    for item, (data, pixels, reason) in zip(batch, read, strict=True):
        prediction = next(predictions) if pixels is not None else None
        if pixels is not None and prediction is None:
            reason = NOT_FINITE
        row = Row(path=item.path, prediction=prediction, error=reason)
        outcomes.append(Outcome(item, data, row))
    return outcomes
