"""Checks every file of a data set before training: whether it is an image, and duplicates."""

from __future__ import annotations

import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import replace
from itertools import chain
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from core.cores import usable_cores
from core.errors import UserError
from core.preprocess import ImageError, TooManyPixelsError, check_header
from training.data import ImageData, Sample
from training.identity import digest_of, digests_of
from training.options import FolderOptions
from training.scan import NAMED, in_words

MAY_LOSE = 0.1  # largest fraction of a class's files that may be unusable

_NOT_THERE = "not there"
_AT_ONCE = 2000  # files per round of the threads, after which the progress bar is updated


def look(
    data: ImageData,
    options: FolderOptions,
    console: Console | None = None,
    *,
    refuse: bool = True,
) -> ImageData:
    """Returns ``data`` without files that are not images, and with the digests of the others.

    Files with a known digest are not read again.

    Args:
        data: the data set; images that are not files are kept unchanged.
        options: what may be left out, and whether duplicates are allowed.
        console: console for a progress bar; None for no bar.
        refuse: whether losses and duplicates are errors; false if training has checked them.

    Raises:
        UserError: more than a tenth, or all, of a class's files are unusable; or the same image is
            in two parts or two classes.
    """
    files = [
        source
        for source, _ in chain.from_iterable(data.parts.values())
        if isinstance(source, Path) and source not in data.digests
    ]
    if not files:
        return data
    looks = look_at(files, console)
    scan = deepcopy(data.scan)
    digests = {**data.digests, **{f: d for f, d in looks.items() if isinstance(d, bytes)}}
    reasons = {file: reason for file, reason in looks.items() if isinstance(reason, str)}
    if refuse:
        for samples in data.parts.values():
            _check_losses(samples, reasons, data, skip=options.skip_unreadable)
    for file, reason in reasons.items():
        scan.leave_out(reason, [file])
    train, val, test = (
        [sample for sample in samples if sample[0] not in reasons]
        for samples in (data.train, data.val, data.test)
    )
    data = replace(data, train=train, val=val, test=test, digests=digests, scan=scan)
    if refuse:
        published = data.folder is None  # keep known duplicates, so that figures are comparable
        _check_duplicates(data, allowed=options.allow_duplicates or published)
    return data


def look_at(files: Sequence[Path], console: Console | None = None) -> dict[Path, bytes | str]:
    """Returns the digest of each file that is an image, and the reason for others."""
    looks: dict[Path, bytes | str] = {}
    columns = (TextColumn("looking at the images"), BarColumn(), MofNCompleteColumn())
    hidden = console is None or not console.is_terminal
    progress = Progress(
        *columns, TimeRemainingColumn(), console=console, disable=hidden, transient=True
    )
    threads = min(32, 4 * usable_cores())  # they wait for the disk
    with progress, ThreadPoolExecutor(threads) as pool:
        task = progress.add_task("", total=len(files))
        for start in range(0, len(files), _AT_ONCE):
            chunk = files[start : start + _AT_ONCE]
            for file, seen in zip(chunk, pool.map(_look, chunk), strict=True):
                looks[file] = seen
                progress.advance(task)
    return looks


def _look(file: Path) -> bytes | str:
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a pipe could block for ever
            return "not a regular file"
        if not status.st_size:
            return "empty"
        check_header(file)
        return digest_of(file)
    except TooManyPixelsError:
        return "with too many pixels"
    except ImageError as error:
        return str(error).removeprefix(f"{file}: ")
    except FileNotFoundError:
        return _NOT_THERE
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _check_losses(
    samples: Sequence[Sample], reasons: Mapping[Path, str], data: ImageData, *, skip: bool
) -> None:
    """Raises UserError if a class loses more files than allowed, or all of them."""
    totals = Counter(label for _, index in samples for label in data.classes_of(index))
    lost: dict[int, dict[str, list[Path]]] = {}
    for file, index in samples:
        if isinstance(file, Path) and file in reasons:
            for label in data.classes_of(index):
                lost.setdefault(label, {}).setdefault(reasons[file], []).append(file)
    for label, by_reason in lost.items():
        total, count = totals[label], sum(map(len, by_reason.values()))
        words = ", ".join(in_words(reason, files) for reason, files in by_reason.items())
        said = (
            f"class {data.labels[label]}: {count:,} of its {total:,} files cannot be used: {words}"
        )
        if count == total and _NOT_THERE in by_reason:
            raise UserError(
                f"{said}; correct the paths in --labels FILE, which are relative to {data.folder} "
                "or to that file, or add the images"
            )
        if count == total:
            raise UserError(f"{said}; add images or remove the class")
        if count > MAY_LOSE * total and not skip:
            raise UserError(f"{said}; mend them, or --skip-unreadable leaves them out")


def _check_duplicates(data: ImageData, *, allowed: bool) -> None:
    """Notes images that are in two parts or in two classes.

    Raises:
        UserError: there are some, and they are not allowed.
    """
    first: dict[bytes, tuple[str, int, object]] = {}
    twice: list[str] = []
    counts: Counter[str] = Counter()
    for part, samples in data.parts.items():
        digests = digests_of(samples, data.digests)
        for digest, (source, label) in zip(digests, samples, strict=True):
            other_part, other_label, other = first.setdefault(digest, (part, label, source))
            if (other_part, other_label) != (part, label):
                two = "with different labels" if data.combinations else "in two classes"
                both = f"in {other_part} and {part}" if other_label == label else two
                counts[both] += 1
                twice.append(f"{other} = {source}")
    if not twice:
        return
    where = ", ".join(f"{count:,} {both}" for both, count in counts.items())
    more = ", ..." if len(twice) > NAMED else ""
    said = f"{data.name}: the same images twice: {where}: {', '.join(twice[:NAMED])}{more}"
    if not allowed:
        raise UserError(f"{said}; remove one of each, or --allow-duplicates goes on")
    data.scan.note(f"warning: {said}")
