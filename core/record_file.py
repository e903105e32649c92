"""Files of typed records, written atomically and validated when read.

A record is a dataclass instance, stored as a line of JSON in a ``.jsonl`` file. A file holds either
rows only (:func:`read_rows`), or a header line and then rows (:class:`RecordFile`).
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

_ADAPTERS: dict[Any, TypeAdapter[Any]] = {}  # one for each type: making one takes milliseconds


def parse(kind: type[T], text: bytes, where: str, *, remedy: str = REMEDY) -> T:
    """Returns the record in ``text``, validated.

    Args:
        kind: type of the record.
        text: JSON.
        where: file and line, for the error message.
        remedy: end of the error message: how to correct the file.

    Raises:
        UserError: ``text`` is not such a record; the first invalid field is named.
    """
    adapter: TypeAdapter[T] = _adapter_of(kind)
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        what = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{where}: {f'{what}: ' if what else ''}{first['msg']}; {remedy}") from None


def dump(record: object, *, indent: int | None = None) -> bytes:
    """Returns ``record``, a dataclass instance, as JSON."""
    return _adapter_of(type(record)).dump_json(record, indent=indent)


def read_rows(path: Path, kind: type[R], *, remedy: str = REMEDY) -> list[R]:
    """Returns the rows of a file in order; an empty list if the file does not exist.

    A last line without a newline is incomplete and is left out.

    Raises:
        UserError: a line is not a valid row.
    """
    if not path.exists():
        return []
    *lines, _ = path.read_bytes().split(b"\n")
    return _rows(path, kind, lines, 1, remedy)


def write_rows(path: Path, rows: Iterable[object]) -> Path:
    """Writes ``rows`` to ``path`` atomically, by rename, and returns ``path``."""
    return write_whole(path, b"".join(dump(row) + b"\n" for row in rows))


def append_row(path: Path, row: object) -> None:
    """Appends ``row`` to a file and closes it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(dump(row) + b"\n")


class RecordFile(Generic[H, R]):
    """A kind of file whose first line is a header and whose other lines are rows.

    Args:
        header: dataclass of the header, with a field ``schema``.
        row: dataclass of a row.
        schema: version number of header and rows; files of other versions are refused.
        remedy: end of error messages: how to correct an invalid file.
    """

    def __init__(self, header: type[H], row: type[R], *, schema: int, remedy: str = REMEDY) -> None:
        self._header, self._row = header, row
        self._schema, self._remedy = schema, remedy

    def read(self, path: Path) -> tuple[H, list[R]]:
        """Returns the header and the rows of file ``path``.

        Raises:
            UserError: another schema, or an invalid line, whose number is named.
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
        """Writes ``header`` and ``rows`` to ``path`` atomically, and returns ``path``."""
        return write_rows(path, [header, *rows])


def schema_of(text: bytes) -> object:
    """Returns the field ``schema`` of a JSON object; None if there is none."""
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
