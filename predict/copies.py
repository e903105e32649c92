"""Copies images to a folder per class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path, PurePosixPath

from core.errors import UserError, first_line
from core.files import write_whole

_LONGEST = 200  # bytes of a name; file systems allow 255


class Copies:
    """Copies images to ``root/<label>/<path below their source>``; never overwrites a file.

    Args:
        root: target folder, created with the first image.
        labels: all labels.
    """

    def __init__(self, root: Path, labels: Sequence[str]) -> None:
        self._root = root
        self._folders: dict[str, str] = {}
        taken: set[str] = set()
        for label in dict.fromkeys(labels):
            base = _name(label)
            name = next(n for n in _numbered(base, "") if n.casefold() not in taken)
            taken.add(name.casefold())
            self._folders[label] = name

    def add(self, label: str, relative: str, data: bytes) -> Path:
        """Writes ``data`` to a file, unless an equal one exists, and returns its path.

        Args:
            label: class of the image.
            relative: path below its source; a number is added if the name is taken.
            data: content of the image file.

        Raises:
            UserError: it cannot be written.
        """
        parts = [_name(part) for part in PurePosixPath(relative).parts if part not in ("/", "..")]
        folder = self._root.joinpath(self._folders[label], *parts[:-1])
        name = PurePosixPath(parts[-1] if parts else "image")
        try:
            for numbered in _numbered(name.stem, name.suffix):
                path = folder / numbered
                if not path.exists():
                    return write_whole(path, data)
                if _holds(path, data):
                    return path
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise UserError(f"{folder / name}: cannot be written ({first_line(error)})") from None
        raise AssertionError("numbers do not end")


def _name(text: str) -> str:
    """Returns ``text`` as a valid file or folder name: without separators, not too long."""
    plain = "".join(c if c.isprintable() and c not in '/\\:*?"<>|' else "_" for c in text)
    plain = plain.encode()[:_LONGEST].decode(errors="ignore")
    return plain if plain.strip(". ") else f"_{plain.strip('. ')}"


def _numbered(stem: str, suffix: str) -> Iterator[str]:
    yield stem + suffix
    yield from (f"{stem}-{number}{suffix}" for number in count(2))


def _holds(path: Path, data: bytes) -> bool:
    return path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data
