"""What a benchmark chose to serve: written by bench, read by serving. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from core.errors import UserError
from core.files import write_whole

FILE = "choice.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A verified artifact, as measured: of one network, or of all of them.

    Attributes:
        artifact: its folder, under that of the choice: ``onnx-int8`` beside the choice of one
            network, ``mobilenet_v2-digits/onnx-int8`` in the folder of all.
        runtime: name of the runtime that it was measured in.
        batch: images per call.
        threads: CPU threads inside one call.
        p50_s: its median latency in seconds, of such a call.
        machine: the processor it was measured on.
    """

    artifact: str
    runtime: str
    batch: int = 1
    threads: int
    p50_s: float
    machine: str


_ADAPTER = TypeAdapter(Choice)


def write_choice(folder: Path, choice: Choice) -> Path:
    """Returns the file in ``folder`` that now holds ``choice``."""
    return write_whole(folder / FILE, _ADAPTER.dump_json(choice, indent=1) + b"\n")


def read_choice(folder: Path) -> Choice | None:
    """Returns what was chosen of the artifacts in ``folder``, or None if nothing was yet.

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
