"""Reads images from zip and tar archives, without unpacking to disk."""

from __future__ import annotations

import lzma
import tarfile
import weakref
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import PurePosixPath
from typing import IO, BinaryIO

from core.errors import first_line
from core.preprocess import ImageError
from predict.classifier import check_size
from predict.pipeline import Item, failed_item, readable
from training.scan import is_by_machines, is_named_otherwise

ZIP = (".zip", ".cbz")
TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
SEPARATOR = "!"  # archive.zip!member
_HEADER = 1 << 20  # size limit of a member's header in bytes
_BROKEN = (
    *(OSError, EOFError, RuntimeError, ValueError),  # passwords, unknown compression methods
    *(zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError),
)


def zip_items(
    name: str, opened: Callable[[], BinaryIO], max_bytes: int, passed: Counter[str]
) -> Iterator[Item]:
    """Yields the images of a zip archive in the order of its directory, which is kept in memory.

    Args:
        name: name of the archive.
        opened: opens the archive.
        max_bytes: size limit of an image file; larger ones are not read.
        passed: counts the members that are not images, by reason.
    """
    file = None
    try:
        file = opened()
        archive = zipfile.ZipFile(file)
        weakref.finalize(archive, file.close)  # kept open until its last item is read
    except _BROKEN as error:
        if file is not None:
            file.close()
        yield failed_item(name, _reason(error))
        return
    for info in archive.infolist():
        if _is_meant(info.filename, info.is_dir(), passed):
            yield Item(
                path=readable(f"{name}{SEPARATOR}{info.filename}"),
                load=partial(_read_zip, archive, info, max_bytes),
                relative=info.filename,
            )


def tar_items(
    name: str, opened: Callable[[], BinaryIO], max_bytes: int, passed: Counter[str]
) -> Iterator[Item]:
    """Yields the images of a tar archive while reading it once, from start to end.

    Each must be loaded before the next is requested. Arguments as for :func:`zip_items`.
    """
    try:
        with opened() as file, tarfile.open(fileobj=file, mode="r|*", tarinfo=_Header) as archive:
            while (info := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # it would keep all
                if _is_meant(info.name, info.isdir(), passed):
                    yield Item(
                        path=readable(f"{name}{SEPARATOR}{info.name}"),
                        load=partial(_read_tar, archive, info, max_bytes),
                        when="now",
                        relative=info.name,
                    )
    except _BROKEN as error:
        yield failed_item(name, f"its rest {_reason(error)}")


class _Header(tarfile.TarInfo):
    """A member's header, with a limit on the size of long names and attributes."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if not self.isreg() and self.size > _HEADER:
            raise tarfile.ReadError(f"a header of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc, no-any-return]


def _read_zip(archive: zipfile.ZipFile, info: zipfile.ZipInfo, max_bytes: int) -> bytes:
    def opened() -> IO[bytes]:
        return archive.open(info)

    return _read(opened, info.file_size, max_bytes)


def _read_tar(archive: tarfile.TarFile, info: tarfile.TarInfo, max_bytes: int) -> bytes:
    if not info.isreg():
        raise ImageError("a link or device within a tar archive, which is not followed")

    def opened() -> IO[bytes]:
        file = archive.extractfile(info)
        assert file is not None, "a regular file"
        return file

    return _read(opened, info.size, max_bytes)


def _read(opened: Callable[[], IO[bytes]], size: int, max_bytes: int) -> bytes:
    """Returns the bytes of a member; never inflates more than ``max_bytes``."""
    if size > max_bytes:
        raise ImageError(f"it exceeds the limit of {max_bytes} bytes (--max-bytes)")
    try:
        with opened() as file:
            data = file.read(max_bytes + 1)
    except _BROKEN as error:
        raise ImageError(_reason(error)) from None
    check_size(data, max_bytes)
    return data


def _is_meant(name: str, is_folder: bool, passed: Counter[str]) -> bool:
    """Returns whether a member may be an image, by its name; counts it in ``passed`` if not."""
    if is_folder:
        return False
    parts = PurePosixPath(name).parts
    if any(is_by_machines(part) for part in parts if part != ".."):
        passed["hidden or left by machines"] += 1
    elif is_named_otherwise(name):
        passed["not meant as an image"] += 1
    else:
        return True
    return False


def _reason(error: Exception) -> str:
    return f"cannot be read ({getattr(error, 'strerror', None) or first_line(error)})"
