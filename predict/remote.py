"""Images at addresses, such as s3://bucket/folder, through fsspec (the extra ``remote``)."""

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
    """Returns whether ``name`` is no path on this machine but an address: ``scheme://...``."""
    return _ADDRESS.match(name) is not None


@dataclass(frozen=True, slots=True)
class Place:
    """A file or folder at an address.

    Attributes:
        address: as a row calls it.
        files: the file system of fsspec that knows it.
        path: what that calls it.
    """

    address: str
    files: Any
    path: str

    def is_folder(self) -> bool:
        """Returns whether it is a folder; what is served over HTTP is none."""
        return not _is_http(self.address) and bool(self.files.isdir(self.path))

    def open(self) -> BinaryIO:
        """Returns its bytes.

        Raises:
            UserError: it is not there, or cannot be reached.
        """
        try:
            return cast(BinaryIO, self.files.open(self.path, "rb"))
        except Exception as error:  # each file system has exceptions of its own
            raise UserError(f"{self.address}: {_why(error)}") from None

    def item(self, max_bytes: int, *, shown: str = "", relative: str = "") -> Item:
        """Returns the item of a file; arguments as of :func:`predict.pipeline.file_item`."""

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
        """Yields the images of a folder; arguments as of :func:`predict.archives.zip_items`."""
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
    """Yields what is at ``address``, in order of name where it is a pattern with ``*``.

    Raises:
        UserError: nothing is there, it cannot be reached, or a package is missing.
    """
    files, path = _file_system(address)
    try:
        if _is_http(address):  # asked when it is read; its ? begins a query
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
    """Returns the item of a file at an address that nobody has looked at yet."""
    try:
        files, path = _file_system(address)
    except UserError as error:
        return failed_item(shown, str(error))
    return Place(address, files, path).item(max_bytes, shown=shown, relative=path)


def _why(error: Exception) -> str:
    """Returns why a file could not be read.

    Over HTTP, fsspec says of every failure that the file was not found; its cause says more.
    """
    cause = error.__cause__
    if not isinstance(error, FileNotFoundError) or not isinstance(cause, Exception):
        return f"cannot be read ({in_words(error)})"
    what = "reached" if isinstance(cause, OSError) else "read"
    return f"cannot be {what} ({in_words(cause)})"


def _is_http(address: str) -> bool:
    return address.lower().startswith(("http://", "https://"))


def _file_system(address: str) -> tuple[Any, str]:
    """Returns the file system of fsspec that knows an address, and what it calls it."""
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
    except Exception as error:  # an unknown scheme, or what a file system refuses at once
        raise UserError(f"{address}: cannot be reached ({in_words(error)})") from None
    return files, str(path)
