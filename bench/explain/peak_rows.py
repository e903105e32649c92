"""The file that keeps the peaks of a machine, for each number of threads. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import ConfigDict, TypeAdapter, with_config

from bench.explain.peaks import Peaks, best, measure_peaks
from bench.kept import parse, schema_of
from models.errors import UserError
from models.files import write_whole
from models.machine import this_machine

SCHEMA = 1
FILE = "peaks.json"


@with_config(ConfigDict(extra="forbid"))
@dataclass(frozen=True, kw_only=True)
class _Document:
    schema: int
    peaks: tuple[Peaks, ...]


_DOCUMENT = TypeAdapter(_Document)


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
    return parse(_DOCUMENT, text, str(path)).peaks


def load_peaks(folder: Path, runtime: str, threads: int, *, again: bool = False) -> Peaks:
    """Returns the peaks of this machine, from ``folder`` or measured now and kept there.

    Args:
        folder: for the file.
        runtime: what the peaks are of.
        threads: CPU threads inside a call.
        again: measure in any case. A peak that was higher before stays: the machine can do it.
    """
    every = {(one.machine, one.runtime, one.threads): one for one in known_peaks(folder)}
    key = this_machine().key, runtime, threads
    before = every.get(key)
    if before and not again:
        return before
    now = measure_peaks(runtime, threads)
    every[key] = best(now, before) if before else now
    document = _Document(schema=SCHEMA, peaks=tuple(every.values()))
    write_whole(folder / FILE, _DOCUMENT.dump_json(document, indent=1) + b"\n")
    return every[key]
