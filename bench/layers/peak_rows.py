"""The file that keeps the peaks of machines, as measured beside layers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, with_config

from bench.layers.peaks import Peaks
from core.errors import UserError
from core.files import write_whole
from core.record_file import dump, parse, schema_of

SCHEMA = 1
FILE = "peaks.json"


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True)
class _Document:
    schema: int
    peaks: tuple[Peaks, ...]


def known_peaks(folder: Path) -> tuple[Peaks, ...]:
    """Returns all peaks that ``folder`` holds, of this machine and of others.

    Raises:
        UserError: a file that cannot be understood.
    """
    path = folder / FILE
    if not path.exists():
        return ()
    text = path.read_bytes()
    if (schema := schema_of(text)) != SCHEMA:
        raise UserError(
            f"{path}: no peaks of schema {SCHEMA} (found {schema!r}); "
            "delete the file, and they are measured again"
        )
    return parse(_Document, text, str(path)).peaks


def keep_peaks(peaks: Peaks, folder: Path, beside: Collection[str] = ()) -> Path:
    """Returns the file in ``folder`` that now holds ``peaks``, and earlier ones that are needed.

    Args:
        peaks: measured now.
        folder: for the file.
        beside: dates of layers that are still explained by the peaks measured beside them; others
            of the same machine, runtime and threads are dropped.
    """
    place, needed = (peaks.machine, peaks.runtime, peaks.threads), set(beside) - {peaks.when}
    kept = [
        one
        for one in known_peaks(folder)
        if (one.machine, one.runtime, one.threads) != place or one.when in needed
    ]
    document = _Document(schema=SCHEMA, peaks=(*kept, peaks))
    return write_whole(folder / FILE, dump(document, indent=1) + b"\n")
