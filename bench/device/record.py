"""Turns on a phone, each with the clocks and the warmth around it, and the file that keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.device.phone import State
from bench.latency.record import Key
from core.record_file import read_rows, write_rows

FILE = "turns.jsonl"


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One turn of one candidate.

    Attributes:
        when: when the run began, as its rows have it.
        key: of the row; see :attr:`bench.latency.record.Row.key`.
        cores: name of the cluster.
        round: number of the round, from 0.
        before: the phone as the turn began.
        after: as it ended.
        waited: seconds it was left to cool down before.
        cool: whether it then was as cool as was asked.
        compared: whether the phone's logits were compared with the golden batch before.
    """

    when: str
    key: Key
    cores: str
    round: int
    before: State
    after: State
    waited: float
    cool: bool
    compared: bool

    @property
    def throttled(self) -> bool:
        """Returns whether Android throttled, or lowered the highest clock during the turn."""
        caps = (self.before.cap_mhz, self.after.cap_mhz)
        lowered = caps[0] is not None and caps[1] is not None and caps[1] < caps[0]
        return lowered or bool(self.before.throttling or self.after.throttling)


def write_turns(turns: list[Turn], folder: Path) -> Path:
    """Returns the file in ``folder`` that now holds ``turns``."""
    return write_rows(folder / FILE, turns)


def read_turns(folder: Path) -> list[Turn]:
    """Returns the turns in ``folder``, none if there is no file."""
    return read_rows(folder / FILE, Turn)
