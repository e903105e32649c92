"""Sources of images: files, folders, patterns, archives, lists of paths, and URLs.

Sources are lazy: images are yielded one by one, and of a tree with ten million files only the names
in one folder are in memory.
"""

from __future__ import annotations

import glob
import os
import stat
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO

from core.errors import UserError
from predict import archives, lists, remote
from predict.pipeline import Item, failed_item, file_item
from training.scan import is_by_machines, is_meant, walk_folders

STDIN = "-"

Passed = Counter[str]  # number of files that are not images, by reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """The source given by one argument.

    Attributes:
        items: yields its images, and counts files that are not images.
        countable: whether its images can be counted cheaply, without reading them.
    """

    items: Callable[[Passed], Iterator[Item]]
    countable: bool = True


def find_sources(names: Iterable[str], max_bytes: int, ours: Iterable[Path] = ()) -> list[Source]:
    """Returns the sources named by ``names``.

    Args:
        names: files, folders, patterns, archives, lists of paths, ``-``, URLs.
        max_bytes: size limit of an image file.
        ours: output files and folders, which are skipped inside folders.

    Raises:
        UserError: one does not exist, is one of ``ours``, or needs a package that is missing.
    """
    written = frozenset(map(os.path.abspath, ours))
    return [source for name in names for source in _find(name, max_bytes, written)]


def find_items(sources: Iterable[Source], passed: Passed) -> Iterator[Item]:
    """Yields the images of ``sources`` in order; counts files that are not images in ``passed``."""
    for source in sources:
        yield from source.items(passed)


def count_items(sources: Iterable[Source]) -> int | None:
    """Returns the number of images in ``sources``; None if only reading them would tell."""
    sources = list(sources)
    if not all(source.countable for source in sources):
        return None
    return sum(1 for _ in find_items(sources, Passed()))


def _find(name: str, max_bytes: int, written: Collection[str]) -> Iterator[Source]:
    if name == STDIN:
        yield Source(items=lambda _: _of_stdin(max_bytes), countable=False)
    elif remote.is_address(name):
        for place in remote.find(name):
            yield _of_place(place, max_bytes)
    elif os.path.lexists(name):
        yield _of_path(Path(name), max_bytes, written)
    elif glob.has_magic(name):
        matches = sorted(glob.glob(name, recursive=True))
        if not matches:
            raise UserError(f"{name}: nothing is called like that; ** stands for any folders")
        for match in matches:
            yield _of_path(Path(match), max_bytes, written)
    else:
        raise UserError(f"{name}: no such file or folder")


def _of_path(path: Path, max_bytes: int, written: Collection[str]) -> Source:
    if os.path.abspath(path) in written:
        raise UserError(f"{path}: it is written by the same command; name other images")
    if path.is_dir():
        return Source(items=partial(_of_folder, path, max_bytes, written))
    listed = partial(_listed, path.parent, max_bytes)
    item = file_item(path, max_bytes)
    return _of_file(str(path), lambda: path.open("rb"), item, listed, max_bytes)


def _of_place(place: remote.Place, max_bytes: int) -> Source:
    if place.is_folder():
        return Source(items=lambda passed: place.items(max_bytes, passed), countable=False)

    def listed(name: str) -> Item:
        beside = name if remote.is_address(name) else f"{place.address.rpartition('/')[0]}/{name}"
        return remote.address_item(beside, max_bytes, shown=name)

    return _of_file(place.address, place.open, place.item(max_bytes), listed, max_bytes)


def _of_file(
    name: str,
    opened: Callable[[], BinaryIO],
    item: Item,
    listed: Callable[[str], Item],
    max_bytes: int,
) -> Source:
    """Returns the source of a file by its suffix: an archive, a list of paths, or an image.

    Args:
        name: name of the file.
        opened: opens the file.
        item: its item, if it is an image.
        listed: returns the item of a path listed in it.
        max_bytes: size limit of an image file.
    """
    ending = name.lower()
    if ending.endswith(archives.ZIP):
        return Source(items=partial(archives.zip_items, name, opened, max_bytes))
    if ending.endswith(archives.TAR):
        tar = partial(archives.tar_items, name, opened, max_bytes)
        return Source(items=tar, countable=False)
    if ending.endswith(lists.TEXT):
        return Source(items=lambda _: map(listed, lists.paths_of_text(opened())))
    if ending.endswith(lists.TABLE):
        lists.check_table(name, opened())
        return Source(items=lambda _: _of_table(name, opened(), listed))
    return Source(items=lambda _: iter((item,)))


def _of_table(name: str, file: BinaryIO, listed: Callable[[str], Item]) -> Iterator[Item]:
    for line, path in lists.paths_of_table(name, file):
        yield listed(path) if path else failed_item(f"{name}, line {line}", "it has no path")


def item_at(place: str, max_bytes: int, *, shown: str) -> Item:
    """Returns the item at ``place``, see :class:`Item`, with ``shown`` as the path in its row."""
    if remote.is_address(place):
        return remote.address_item(place, max_bytes, shown=shown)
    return file_item(Path(place), max_bytes, shown=shown)


def _of_stdin(max_bytes: int) -> Iterator[Item]:
    return map(partial(_listed, Path(), max_bytes), lists.paths_of_text(sys.stdin.buffer))


def _listed(folder: Path, max_bytes: int, name: str) -> Item:
    """Returns the item of a listed path, relative to ``folder``, else to the current folder."""
    if remote.is_address(name):
        return remote.address_item(name, max_bytes, shown=name)
    path = folder / name
    # Path.exists raises for invalid names; reading will report the reason.
    return file_item(
        path if os.path.exists(path) else Path(name), max_bytes, shown=name, relative=name
    )


def _of_folder(
    folder: Path, max_bytes: int, written: Collection[str], passed: Passed
) -> Iterator[Item]:
    errors: list[OSError] = []
    for here, folders, files in walk_folders(folder, onerror=errors.append):
        passed["hidden or left by machines"] += sum(map(is_by_machines, (*folders, *files)))
        if written:
            folders[:] = [name for name in folders if not _is_written(here, name, written)]
        for name in files:
            path = Path(here, name)
            if is_by_machines(name) or _is_written(here, name, written):
                continue
            if _is_special(path):
                passed["no regular file"] += 1
            elif not is_meant(path):
                passed["not meant as an image"] += 1
            else:
                yield file_item(path, max_bytes, relative=str(path.relative_to(folder)))
        yield from _unlisted(errors)
    yield from _unlisted(errors)


def _is_written(folder: str, name: str, written: Collection[str]) -> bool:
    return bool(written) and os.path.abspath(os.path.join(folder, name)) in written


def _is_special(path: Path) -> bool:
    """Returns whether ``path`` is a special file, such as a pipe, which would block."""
    try:
        return not stat.S_ISREG(path.stat().st_mode)
    except OSError:  # reading will report the reason
        return False


def _unlisted(errors: list[OSError]) -> Iterator[Item]:
    """Yields a failed item for each folder that could not be listed, and clears ``errors``."""
    while errors:
        error = errors.pop(0)
        yield failed_item(str(error.filename), f"the folder cannot be listed ({error.strerror})")
