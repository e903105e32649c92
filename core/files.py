"""Folders and files that appear whole or not at all, and digests of files."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from core.errors import UserError, first_line

_PIECE = 1 << 20  # bytes


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yields an empty folder that becomes ``path`` by rename, or disappears on an exception.

    What stood at ``path`` before is replaced, and stays as it was if the block fails.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    try:
        new = work / "new"
        new.mkdir()
        with _named(path):
            yield new
        replace_folder(new, path)
    finally:
        shutil.rmtree(work)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Adds ``path`` to an OSError that names no file, as errors of writing do not."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def replace_folder(new: Path, path: Path) -> None:
    """Renames folder ``new`` to ``path``; what stood there before is deleted."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as old:
        if path.exists():
            path.rename(Path(old) / "old")
        new.rename(path)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Yields a file that becomes ``path`` by rename, or disappears on an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with _named(path), temporary.open("wb") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> Path:
    """Writes ``content`` to ``path`` by rename, never a part of it, and returns ``path``."""
    with whole_file(path) as file:
        file.write(content)
    return path


def check_folder(path: Path) -> None:
    """Checks that files can be put into the folder ``path``, which need not exist; makes nothing.

    Raises:
        UserError: it is a file or below one, or may not be written.
    """
    try:
        above = path.absolute()
        nearest = next(each for each in (above, *above.parents) if each.exists())
    except OSError as error:  # of a name that is too long
        raise UserError(f"{path}: cannot be written ({first_line(error)})") from None
    if not nearest.is_dir():
        raise UserError(f"{path}: cannot be written ({nearest} is a file)")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{path}: cannot be written (no permission for {nearest})")


def contains(path: Path, needle: bytes) -> bool:
    """Returns whether ``needle`` stands anywhere in a file."""
    end = b""
    # By pieces, not mapped into memory: a mapped file that is cut short kills the process.
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            if needle in (piece := end + piece):
                return True
            end = piece[-len(needle) :]
    return False


def sha256(path: Path) -> str:
    """Returns the hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
