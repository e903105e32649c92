"""Reads lists of paths: a text file with one path per line, or a CSV file with a column of them."""

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
# Accepted names of the path column, case-insensitive, in order of preference.
COLUMNS = ("path", "image", "file", "filename", "file_name", "filepath", "image_path", "url")
_SEPARATORS = ",;\t|"
_MOST = 1 << 20  # bytes of a line: a file without line ends is not a list
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG")  # how JPEG and PNG files begin


def paths_of_text(file: BinaryIO) -> Iterator[str]:
    """Yields the non-empty lines of ``file``; names that are not UTF-8 still work as paths.

    Raises:
        UserError: a line is longer than any path, or the file is an image.
    """
    with closing(file):
        while line := file.readline(_MOST):
            if len(line) == _MOST:
                raise UserError(
                    f"a list with a line of {_MOST} bytes or more: give one path a line"
                )
            if line.startswith(_IMAGES):
                raise UserError("a list that is an image itself: give its path, or a list of paths")
            if path := os.fsdecode(line.rstrip(b"\r\n")):
                yield path.removeprefix("\ufeff")


def check_table(name: str, file: BinaryIO) -> None:
    """Raises UserError unless the CSV file ``name`` has a column of paths; closes ``file``."""
    with _opened(file) as text:
        _reader(name, text)


def paths_of_table(name: str, file: BinaryIO) -> Iterator[tuple[int, str]]:
    """Yields the last line number (from 1) and the path of each row; the path may be empty.

    Empty lines are skipped.

    Raises:
        UserError: no column is named in :data:`COLUMNS`, or it is not a CSV file.
    """
    with _opened(file) as text:
        reader, column = _reader(name, text)
        try:
            for row in reader:
                if row:
                    path = row[column] if column < len(row) else ""
                    yield reader.line_num + 1, path  # line 1 has the column names
        except csv.Error as error:
            raise _error(name, error) from None


def _opened(file: BinaryIO) -> TextIO:
    """Returns ``file`` as text; closing it closes ``file``. Invalid UTF-8 is preserved."""
    return io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")


def _reader(name: str, text: TextIO) -> tuple[_Rows, int]:
    """Returns the rows after the header, and the index of the path column."""
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
