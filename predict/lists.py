"""Lists of paths: a text file with one a line, or a CSV file with a column of them."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, BinaryIO, TextIO

if TYPE_CHECKING:
    from _csv import Reader as _Rows  # csv has no name for it in Python 3.11

from core.errors import UserError, first_line

TEXT = (".txt", ".lst", ".list")
TABLE = (".csv", ".tsv")
# What the column of paths is called, compared without case; the first of these that is there.
COLUMNS = ("path", "image", "file", "filename", "file_name", "filepath", "image_path", "url")
_SEPARATORS = ",;\t|"
_MOST = 1 << 20  # bytes of a line: a file without line ends is no list


def paths_of_text(file: BinaryIO) -> Iterator[str]:
    """Yields each line of ``file`` but empty ones; a name that is not UTF-8 names its file still.

    Raises:
        UserError: a line is longer than any path.
    """
    with closing(file):
        while line := file.readline(_MOST):
            if len(line) == _MOST:
                raise UserError(
                    f"a list with a line of {_MOST} bytes or more: give one path a line"
                )
            if path := os.fsdecode(line.rstrip(b"\r\n")):
                yield path.removeprefix("\ufeff")


def check_table(name: str, file: BinaryIO) -> None:
    """Raises UserError unless the CSV file ``name`` has a column of paths; closes ``file``."""
    with _opened(file) as text:
        _reader(name, text)


def paths_of_table(name: str, file: BinaryIO) -> Iterator[tuple[int, str]]:
    """Yields the line that each row ends on, from 1, and its path, empty where it has none.

    Empty lines are no rows.

    Raises:
        UserError: no column is called like one of :data:`COLUMNS`, or it is no CSV file.
    """
    with _opened(file) as text:
        reader, column = _reader(name, text)
        try:
            for row in reader:
                if row:
                    path = row[column] if column < len(row) else ""
                    yield reader.line_num + 1, path  # the names of the columns are line 1
        except csv.Error as error:
            raise _error(name, error) from None


def _opened(file: BinaryIO) -> TextIO:
    """Returns ``file`` as text, which closes it; bytes that are not UTF-8 stay what they are."""
    return io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")


def _reader(name: str, text: TextIO) -> tuple[_Rows, int]:
    """Returns the rows below the names of the columns, and which column holds paths."""
    try:
        head = text.readline(_MOST)
        separator = max(_SEPARATORS, key=head.count)
        header = next(csv.reader([head], delimiter=separator, strict=True), [])
    except csv.Error as error:
        raise _error(name, error) from None
    names = [each.strip().casefold() for each in header]
    for column in COLUMNS:
        if column in names:
            return csv.reader(text, delimiter=separator, strict=True), names.index(column)
    raise UserError(
        f"{name}: none of its columns ({', '.join(header) or 'none'}) is called path or image; "
        "name one so, or give a .txt file with a path on each line"
    )


def _error(name: str, error: csv.Error) -> UserError:
    return UserError(f"{name}: not a CSV file ({first_line(error)})")
