"""What a benchmark chose to serve: written by bench, read by serving. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from models.errors import UserError
from models.files import write_whole

FILE = "choice.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The fastest verified artifact of one network and data set, as measured.

    Attributes:
        artifact: folder name beside the choice, such as ``onnx-int8``.
        runtime: name of the runtime that was fastest with it.
        threads: CPU threads inside one call.
        p50_s: its median latency in seconds at batch 1.
        machine: the processor it was measured on.
    """

    artifact: str
    runtime: str
    threads: int
    p50_s: float
    machine: str


_ADAPTER = TypeAdapter(Choice)


def write_choice(folder: Path, choice: Choice) -> Path:
    """Returns the file that now holds ``choice``, beside the artifacts in ``folder``."""
    return write_whole(folder / FILE, _ADAPTER.dump_json(choice, indent=1) + b"\n")


def read_choice(folder: Path) -> Choice | None:
    """Returns what was chosen for the artifacts in ``folder``, or None if nothing was yet.

    Raises:
        UserError: the file is there and cannot be understood.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return _ADAPTER.validate_json(path.read_bytes())
    except ValidationError as error:
        raise UserError(f"{path}: {error.errors()[0]['msg']}; run make bench again") from None
