"""Turns on a phone, with clocks and temperature before and after, and the file that stores them."""

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
        when: start of the run, as in its rows.
        key: key of the row; see :attr:`bench.latency.record.Row.key`.
        cores: name of the cluster.
        round: number of the round, from 0.
        before: state of the phone before the turn.
        after: state after the turn.
        waited: seconds of cooling down before the turn.
        cool: whether the phone was then cool enough and not throttled.
        compared: whether the phone's logits were compared with the golden batch.
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
        """Returns whether Android throttled the phone or lowered the clock limit in the turn."""
        caps = (self.before.cap_mhz, self.after.cap_mhz)
        lowered = caps[0] is not None and caps[1] is not None and caps[1] < caps[0]
        return lowered or bool(self.before.throttling or self.after.throttling)


def write_turns(turns: list[Turn], folder: Path) -> Path:
    """Writes ``turns`` into ``folder`` and returns the path of the file."""
    return write_rows(folder / FILE, turns)


def read_turns(folder: Path) -> list[Turn]:
    """Returns the turns stored in ``folder``; empty without a file."""
    return read_rows(folder / FILE, Turn)
