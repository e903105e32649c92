"""The journal of an unfinished run, from which it can be resumed: a header line, then rows."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO, Self, cast

from core.errors import UserError, first_line
from core.preprocess import Truncated
from core.record_file import dump, parse, schema_of
from predict.pipeline import Row

SCHEMA = 2
_REMEDY = "--fresh starts anew"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """Everything that determines the rows of a run.

    Attributes:
        schema: version of the file format.
        artifact: digest of the artifact's manifest.
        runtime: name of the runtime.
        top_k: number of classes in a row.
        sources: sources as given.
        max_bytes: size limit of an image file.
        max_pixels: limit of an image's pixels.
        truncated: whether truncated JPEGs are accepted.
        copy_to: folder to copy images to; None for no copies.
        abstain: whether to answer no class where the most likely one is unsure.
    """

    schema: int = SCHEMA
    artifact: str
    runtime: str
    top_k: int
    sources: tuple[str, ...]
    max_bytes: int
    max_pixels: int
    truncated: Truncated
    copy_to: str | None = None
    abstain: bool = False


class Journal:
    """The file of an unfinished run, open and locked until it is closed. A context manager."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file

    @classmethod
    def begin(cls, path: Path, plan: Plan) -> Self:
        """Creates a journal without rows, replacing an existing one.

        Raises:
            UserError: it cannot be written, or another run is writing it.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = _locked(path, "ab")
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({first_line(error)})") from None
        file.truncate(0)
        journal = cls(path, file)
        journal._write(plan)
        return journal

    @classmethod
    def go_on(cls, path: Path, plan: Plan) -> Self:
        """Opens an existing journal; an incomplete last row is dropped.

        Raises:
            UserError: it is invalid, or belongs to another plan; the message says how they differ.
        """
        file = _locked(path, "r+b")
        try:
            header = file.readline()
            if schema_of(header) != SCHEMA:
                raise UserError(f"{path}: line 1 is no header of schema {SCHEMA}; {_REMEDY}")
            _check_same(path, parse(Plan, header, f"{path}: line 1", remedy=_REMEDY), plan)
            end = file.tell()
            for line in file:
                if not line.endswith(b"\n"):
                    break
                end += len(line)
            file.truncate(end)
            file.seek(end)
        except BaseException:
            file.close()
            raise
        return cls(path, file)

    @staticmethod
    def check_idle(path: Path) -> None:
        """Raises UserError if a run is writing the journal at ``path``."""
        _locked(path, "rb").close()

    def append(self, row: Row) -> None:
        """Appends a row, which persists even if the process is killed right afterwards."""
        self._write(row)

    def count(self) -> int:
        """Returns how many whole rows the file has: after :meth:`close`, those that are kept."""
        with self.path.open("rb") as file:
            return sum(line.endswith(b"\n") for line in file) - 1

    def rows(self) -> Iterator[Row]:
        """Yields the rows in order; must not be interleaved with :meth:`append`.

        Raises:
            UserError: an invalid line, whose number is named.
        """
        with self.path.open("rb") as file:
            file.readline()
            for number, line in enumerate(file, start=2):
                yield parse(Row, line, f"{self.path}: line {number}", remedy=_REMEDY)

    def delete(self) -> None:
        """Deletes the file, after the run has finished."""
        self.path.unlink()

    def close(self) -> None:
        """Closes and unlocks the file."""
        with suppress(OSError):  # only data whose write failed, and was reported, is unflushed
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _write(self, record: object) -> None:
        self._file.write(dump(record) + b"\n")
        self._file.flush()


def _locked(path: Path, mode: str) -> BinaryIO:
    """Opens and locks the file."""
    file = cast(BinaryIO, path.open(mode))
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        raise UserError(f"{path}: another run writes it; wait for that, or end it") from None
    return file


def _check_same(path: Path, saved: Plan, plan: Plan) -> None:
    for each in fields(Plan):
        before, now = getattr(saved, each.name), getattr(plan, each.name)
        if before != now:
            flag = each.name.replace("_", "-")
            raise UserError(
                f"{path} was begun with another {flag} ({before!r}, now {now!r}): give the same, "
                f"or --fresh to start anew"
            )
