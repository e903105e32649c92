"""Files of typed records, written whole and checked when they are read.

A record is a dataclass, and a line of JSON in a ``.jsonl`` file. A file either holds rows only
(:func:`read_rows`), or a header on its first line that all its rows share (:class:`RecordFile`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from core.errors import UserError
from core.files import write_whole

H = TypeVar("H")
R = TypeVar("R")
T = TypeVar("T")

REMEDY = "delete the file, and it is measured again"

_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}  # made once of each kind: it takes milliseconds


def parse(kind: type[T], text: bytes, where: str, *, remedy: str = REMEDY) -> T:
    """Returns what ``text`` holds.

    Args:
        kind: of what it should hold.
        text: JSON.
        where: the file, and the line if there are several.
        remedy: how to mend what is wrong.

    Raises:
        UserError: it holds something else; the first thing that is wrong is named.
    """
    adapter: TypeAdapter[T] = _adapter_of(kind)
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        what = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{where}: {f'{what}: ' if what else ''}{first['msg']}; {remedy}") from None


def dump(record: object, *, indent: int | None = None) -> bytes:
    """Returns ``record``, a dataclass, as JSON."""
    return _adapter_of(type(record)).dump_json(record, indent=indent)


def read_rows(path: Path, kind: type[R], *, remedy: str = REMEDY) -> list[R]:
    """Returns the rows of a file, in order; none if there is no file.

    Raises:
        UserError: a line of it cannot be understood; a last one without an end was cut off and is
            left out.
    """
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    return _rows(path, kind, lines, 1, remedy)


def write_rows(path: Path, rows: Iterable[object]) -> Path:
    """Writes ``rows`` to ``path``, whole, by rename, and returns ``path``."""
    return write_whole(path, b"".join(dump(row) + b"\n" for row in rows))


def append_row(path: Path, row: object) -> None:
    """Appends ``row`` to a file; it is written when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(dump(row) + b"\n")


class RecordFile(Generic[H, R]):
    """A file with a header on its first line, and a row on each other.

    Args:
        header: dataclass of what all rows share; its field ``schema`` is the number below.
        row: dataclass of a row.
        schema: of header and rows; a file of another one is refused.
        remedy: how to mend a file that cannot be understood.
    """

    def __init__(self, header: type[H], row: type[R], *, schema: int, remedy: str = REMEDY) -> None:
        self._header, self._row = header, row
        self._schema, self._remedy = schema, remedy

    def read(self, path: Path) -> tuple[H, list[R]]:
        """Returns header and rows of the file ``path``.

        Raises:
            UserError: another schema, or a line cannot be understood; its number is named.
        """
        lines = path.read_bytes().splitlines()
        if (schema := schema_of(lines[0] if lines else b"")) != self._schema:
            raise UserError(
                f"{path}: line 1 is no header of schema {self._schema} (found {schema!r}); "
                f"{self._remedy}"
            )
        header = parse(self._header, lines[0], f"{path}: line 1", remedy=self._remedy)
        return header, _rows(path, self._row, lines[1:], 2, self._remedy)

    def write(self, path: Path, header: H, rows: Iterable[R]) -> Path:
        """Writes ``header`` and ``rows`` to ``path``, whole, and returns ``path``."""
        return write_rows(path, [header, *rows])


def schema_of(text: bytes) -> object:
    """Returns the schema that a JSON object names; None where there is none."""
    try:
        return json.loads(text)["schema"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _rows(path: Path, kind: type[R], lines: list[bytes], first: int, remedy: str) -> list[R]:
    return [
        parse(kind, line, f"{path}: line {number}", remedy=remedy)
        for number, line in enumerate(lines, start=first)
    ]


def _adapter_of(kind: Any) -> TypeAdapter[Any]:
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]
