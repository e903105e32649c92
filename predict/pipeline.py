"""Turns items into rows: reads, decodes and classifies; failures become rows with a reason."""

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

# When an item may be read: in any thread at its turn; ahead of its turn, because it is remote and
# slow; or only before the next item is requested.
When = Literal["any", "ahead", "now"]
READERS = 32  # threads that read remote items


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """One image to classify.

    Attributes:
        path: its path in the output row.
        load: returns the bytes of its file; raises UserError on failure.
        when: when ``load`` may be called.
        relative: path below its source, with ``/`` as separator.
        place: path or URL by which other processes can read it; empty if none can.
        reason: why it cannot be read, if that is known already; otherwise empty.
    """

    path: str
    load: Callable[[], bytes]
    when: When = "any"
    relative: str = ""
    place: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """The result of one image.

    Attributes:
        path: path of its item.
        prediction: the prediction; None on failure.
        error: the reason in one line; None on success.
    """

    path: str
    prediction: Prediction | None = None
    error: str | None = None


class Outcome(NamedTuple):
    """The outcome of one item.

    Attributes:
        item: the item.
        data: bytes of its file, if they are kept; None if they could not be read.
        row: its row.
    """

    item: Item
    data: bytes | None
    row: Row


def file_item(path: Path, max_bytes: int, *, shown: str = "", relative: str = "") -> Item:
    """Returns the item of a file on this machine.

    Args:
        path: path of the file.
        max_bytes: size limit.
        shown: path in the output row; ``path`` if empty.
        relative: see :class:`Item`; the file's name if empty.
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
    """Returns ``path`` as valid text: bytes that are not UTF-8 become ``\\xff``."""
    return os.fsencode(path).decode(errors="backslashreplace")


def classify(
    classifier: Classifier, items: Iterable[Item], *, top_k: int = TOP_K, keep: bool = False
) -> Generator[Outcome]:
    """Yields the outcome of each item in order, with only a few in memory.

    A failure of the runtime itself is raised, not turned into a row.

    Args:
        classifier: the classifier; it reads, decodes and infers in its ``threads``.
        items: items, possibly endless.
        top_k: number of classes in each row.
        keep: whether to keep the bytes of the files in the outcomes.
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
    """Yields ``items``; those that must not wait for their turn are read, or being read."""
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
