"""A row of the comparison with the peers, and the file that stores rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from artifact.records import Precision, Weights
from bench.measure.timing import Latency, Plan
from core.machine import Machine
from core.record_file import read_rows, write_rows

OURS = "ours"
NAME = "peers"
REMEDY = "delete the file and measure again"


@dataclass(frozen=True, kw_only=True)
class PeerRow:
    """One network in one setting of one toolchain, batch 1, one thread.

    Attributes:
        network: ``<model>-<data>``.
        macs: multiply-accumulates per image.
        weights: kind of the weights.
        toolchain: name of the peer, or :data:`OURS`.
        setting: name of the setting; of ours artifact and runtime.
        precision: whose gates it has to hold.
        agreement: fraction of the held-out images with the same top-1 class as in torch.
        error: largest difference of a logit from torch's, over the largest logit.
        images: number of these images.
        tools: versions of what made its files, besides those of ``machine``.
        missed: the gate that it misses; None if it holds all, or was not run.
        latency: all samples; None if it could not run.
        reason: why it could not run; None if it did.
        plan: number of samples and rounds.
        machine: the machine, with the versions of the libraries.
        when: UTC date and time of the run, ISO 8601; rows of one run of a network were interleaved.
    """

    network: str
    macs: int
    weights: Weights
    toolchain: str
    setting: str
    precision: Precision
    agreement: float | None = None
    error: float | None = None
    images: int = 0
    tools: dict[str, str] = field(default_factory=dict)
    missed: str | None = None
    latency: Latency | None = None
    reason: str | None = None
    plan: Plan
    machine: Machine
    when: str

    @property
    def title(self) -> str:
        """Returns toolchain and setting as text; of ours only the latter."""
        return self.setting if self.toolchain == OURS else f"{self.toolchain}, {self.setting}"


def read_peers(folder: Path) -> list[PeerRow]:
    """Returns the rows in ``folder``, of all runs; an empty list without any."""
    return read_rows(folder / f"{NAME}.jsonl", PeerRow, remedy=REMEDY)


def write_peers(folder: Path, rows: Iterable[PeerRow]) -> Path:
    """Writes ``rows`` into ``folder`` atomically and returns the file's path."""
    return write_rows(folder / f"{NAME}.jsonl", rows)
