"""Atomic writes of folders and files (by rename), digests of files, and whether they are there."""

from __future__ import annotations

import fcntl
import glob
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from core.errors import UserError, first_line

_PIECE = 1 << 20  # bytes
_ABANDONED_SECONDS = 60  # a folder is created a moment before it is locked


@contextmanager
def staged(path: Path) -> Iterator[Path]:
    """Yields an empty folder that is renamed to ``path``, or deleted on an exception.

    An existing ``path`` is replaced on success and left unchanged on an exception. What killed
    processes left of the same ``path`` is deleted.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _delete_abandoned(path)
    work = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
    lock = os.open(work, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        new = work / "new"
        new.mkdir()
        with _named(path):
            yield new
        replace_folder(new, path)
    finally:
        shutil.rmtree(work)
        os.close(lock)


def _delete_abandoned(path: Path) -> None:
    """Deletes the folders of :func:`staged` that no process holds and that are not brand new."""
    for folder in path.parent.glob(f".{glob.escape(path.name)}-????????"):
        try:
            lock = os.open(folder, os.O_RDONLY)
        except FileNotFoundError:  # it is done
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - os.stat(lock).st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass  # a process works in it
        finally:
            os.close(lock)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Sets the file name of an OSError that has none, as errors of ``write`` do."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def replace_folder(new: Path, path: Path) -> None:
    """Renames folder ``new`` to ``path``; an existing ``path`` is deleted."""
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as old:
        if path.exists():
            path.rename(Path(old) / "old")
        new.rename(path)


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Yields an open file that is renamed to ``path``, or deleted on an exception."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with _named(path), temporary.open("wb") as file:
            yield file
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes) -> Path:
    """Writes ``content`` to ``path`` atomically, by rename, and returns ``path``."""
    with whole_file(path) as file:
        file.write(content)
    return path


@contextmanager
def only_one(folder: Path, otherwise: str | None) -> Iterator[None]:
    """Creates ``folder`` and keeps other processes that call this out of the block.

    A file system without locks keeps nobody out.

    Args:
        folder: the folder.
        otherwise: what is said if another process is in such a block; None to wait for it.

    Raises:
        UserError: another process is in such a block, with the text ``otherwise``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (fcntl.LOCK_NB if otherwise else 0))
            except BlockingIOError:
                raise UserError(otherwise or "") from None
        yield
    finally:
        os.close(descriptor)


def check_folder(path: Path) -> None:
    """Checks that files can be written to folder ``path``, which need not exist.

    It creates nothing.

    Raises:
        UserError: ``path`` or one of its parents is a file, or is not writable.
    """
    try:
        above = path.absolute()
        nearest = next(each for each in (above, *above.parents) if each.exists())
    except OSError as error:  # such as a name that is too long
        raise UserError(f"{path}: cannot be written ({first_line(error)})") from None
    if not nearest.is_dir():
        raise UserError(f"{path}: cannot be written ({nearest} is a file)")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"{path}: cannot be written (no permission for {nearest})")
    try:
        tempfile.TemporaryFile(dir=nearest).close()  # root has every permission
    except OSError as error:
        why = error.strerror or first_line(error)
        raise UserError(
            f"{path}: cannot be written (no file can be made in {nearest}: {why})"
        ) from None


def contains(path: Path, needle: bytes) -> bool:
    """Returns whether the file contains ``needle``."""
    end = b""
    # In chunks, not memory-mapped: truncating a mapped file kills the process that reads it.
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            if needle in (piece := end + piece):
                return True
            end = piece[-len(needle) :]
    return False


def sha256(path: Path) -> str:
    """Returns the SHA-256 digest of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_is_file(path: Path) -> None:
    """Raises UserError if there is no file ``path``, or it is a folder."""
    if path.is_dir():
        raise UserError(f"{path} is a folder; pass the path of a file in it")
    if not path.is_file():
        raise UserError(f"there is no file {path}; check the path")
