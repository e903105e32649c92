"""Rows that are kept as they are found: a line of JSON each, added to a file. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from core.record_file import parse, write_lines

T = TypeVar("T")


def add(path: Path, row: object) -> None:
    """Adds ``row``, a dataclass, to a file: it is there even if the process ends right after."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(_line(row) + b"\n")


def rewrite(path: Path, rows: Sequence[object]) -> None:
    """Makes ``rows`` all that a file holds."""
    write_lines(path, map(_line, rows))


def rows_of(path: Path, kind: type[T]) -> list[T]:
    """Returns the rows of ``kind`` in a file, in order; none if there is no file.

    Raises:
        UserError: a line of it cannot be understood; a last one without an end was cut off and is
            left out.
    """
    if not path.exists():
        return []
    adapter: TypeAdapter[T] = TypeAdapter(kind)
    *lines, _ = path.read_bytes().split(b"\n")
    return [
        parse(adapter, line, f"{path}: line {number}", remedy="run that step again")
        for number, line in enumerate(lines, start=1)
    ]


def _line(row: object) -> bytes:
    adapter: TypeAdapter[Any] = TypeAdapter(type(row))
    return adapter.dump_json(row)
