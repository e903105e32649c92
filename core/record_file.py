"""Files of JSON that a measurement leaves, written and read back. No torch here."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from core.errors import UserError
from core.files import write_whole

T = TypeVar("T")


def parse(
    adapter: TypeAdapter[T],
    text: bytes,
    where: str,
    *,
    remedy: str = "delete the file, and it is measured again",
) -> T:
    """Returns what ``text`` holds.

    Args:
        adapter: of what it should hold.
        text: JSON.
        where: the file, and the line if there are several.
        remedy: how to mend what is wrong.

    Raises:
        UserError: it holds something else; the first thing that is wrong is named.
    """
    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        what = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{where}: {f'{what}: ' if what else ''}{first['msg']}; {remedy}") from None


def write_lines(path: Path, lines: Iterable[bytes]) -> Path:
    """Returns ``path``, which appears whole: ``lines``, each of them JSON."""
    return write_whole(path, b"".join(line + b"\n" for line in lines))


def schema_of(text: bytes) -> object:
    """Returns the schema that a JSON object names; None where there is none."""
    try:
        return json.loads(text)["schema"]
    except (ValueError, TypeError, KeyError):
        return None
