"""Reads images from URLs, such as s3://bucket/folder, with fsspec (the extra ``remote``)."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from core.errors import UserError, in_words
from core.preprocess import ImageError
from predict.classifier import check_size
from predict.pipeline import Item, failed_item
from training.scan import is_by_machines, is_named_otherwise

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", flags=re.IGNORECASE)


def is_address(name: str) -> bool:
    """Returns whether ``name`` is a URL, ``scheme://...``, and not a path on this machine."""
    return _ADDRESS.match(name) is not None


@dataclass(frozen=True, slots=True)
class Place:
    """A file or folder at a URL.

    Attributes:
        address: the URL, as shown in rows.
        files: its fsspec file system.
        path: its path in that file system.
    """

    address: str
    files: Any
    path: str

    def is_folder(self) -> bool:
        """Returns whether it is a folder; HTTP URLs never are."""
        return not _is_http(self.address) and bool(self.files.isdir(self.path))

    def open(self) -> BinaryIO:
        """Opens it for reading.

        Raises:
            UserError: it does not exist, or cannot be reached.
        """
        try:
            return cast(BinaryIO, self.files.open(self.path, "rb"))
        except Exception as error:  # each file system has exceptions of its own
            raise UserError(f"{self.address}: {_why(error)}") from None

    def item(self, max_bytes: int, *, shown: str = "", relative: str = "") -> Item:
        """Returns the item of a file; arguments as for :func:`predict.pipeline.file_item`."""

        def load() -> bytes:
            try:
                with self.files.open(self.path, "rb") as file:
                    data = cast(bytes, file.read(max_bytes + 1))
            except Exception as error:
                raise ImageError(_why(error)) from None
            check_size(data, max_bytes)
            return data

        return Item(
            path=shown or self.address,
            load=load,
            when="ahead",
            relative=relative or self.address.rpartition("/")[2],
            place=self.address,
        )

    def items(self, max_bytes: int, passed: Counter[str]) -> Iterator[Item]:
        """Yields the images of a folder; arguments as for :func:`predict.archives.zip_items`."""
        errors: list[Exception] = []
        for here, folders, files in self.files.walk(self.path, on_error=errors.append):
            machines = [name for name in (*folders, *files) if is_by_machines(name)]
            passed["hidden or left by machines"] += len(machines)
            folders[:] = sorted(name for name in folders if not is_by_machines(name))
            for name in sorted(files):
                if is_named_otherwise(name):
                    passed["not meant as an image"] += 1
                elif not is_by_machines(name):
                    path = f"{here}/{name}"
                    place = Place(self.files.unstrip_protocol(path), self.files, path)
                    relative = path.removeprefix(self.path).lstrip("/")
                    yield place.item(max_bytes, relative=relative)
            while errors:
                reason = f"the folder cannot be listed ({in_words(errors.pop(0))})"
                yield failed_item(self.address, reason)


def find(address: str) -> Iterator[Place]:
    """Yields the place at ``address``, or those that match it, in order of name, if it has ``*``.

    Raises:
        UserError: nothing is found, it cannot be reached, or a package is missing.
    """
    files, path = _file_system(address)
    try:
        if _is_http(address):  # checked when it is read; a ? starts a query here
            found = [path]
        elif "*" in path:
            found = sorted(files.glob(path))
        else:
            found = [path] if files.exists(path) else []
    except Exception as error:  # each file system has exceptions of its own
        raise UserError(f"{address}: cannot be reached ({in_words(error)})") from None
    if not found:
        raise UserError(f"{address}: nothing is there")
    for each in found:
        yield Place(files.unstrip_protocol(each), files, each)


def address_item(address: str, max_bytes: int, *, shown: str) -> Item:
    """Returns the item of a file at a URL, without accessing it."""
    try:
        files, path = _file_system(address)
    except UserError as error:
        return failed_item(shown, str(error))
    return Place(address, files, path).item(max_bytes, shown=shown, relative=path)


def _why(error: Exception) -> str:
    """Returns why a file could not be read.

    For HTTP, fsspec reports every failure as "file not found"; the cause has the actual reason.
    """
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, Exception):
        return f"cannot be read ({in_words(error)})"
    what = "reached" if isinstance(cause, OSError) else "read"
    return f"cannot be {what} ({in_words(cause)})"


def _is_http(address: str) -> bool:
    return address.lower().startswith(("http://", "https://"))


def _file_system(address: str) -> tuple[Any, str]:
    """Returns the fsspec file system of a URL, and the path in it."""
    try:
        from fsspec.core import url_to_fs
        from fsspec.registry import known_implementations
    except ImportError:
        raise UserError(f"{address}: addresses need fsspec: pip install '.[remote]'") from None
    try:
        files, path = url_to_fs(address, use_listings_cache=False)
    except ImportError:
        scheme = address.partition("://")[0].lower()
        package = known_implementations[scheme]["class"].partition(".")[0]
        install = "'.[remote]'" if package == "fsspec" else package
        raise UserError(f"{address}: {scheme}:// needs a package: pip install {install}") from None
    except Exception as error:  # an unknown scheme, or an invalid URL
        raise UserError(f"{address}: cannot be reached ({in_words(error)})") from None
    return files, str(path)
