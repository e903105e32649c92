"""Picks the candidate of a network to serve: the fastest that passed its checks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from artifact.runtimes.base import is_servable, runs_on_gpu
from artifact.store import SavedPick, save_pick
from bench.latency.rows import Row, Sweep, p50
from bench.measure.timing import overlap

PRECISIONS = ("fp32", "fp16", "int8")  # the one to prefer first, where speed does not decide
_NAMED = 2  # ties that are named; more are counted


@dataclass(frozen=True, kw_only=True, slots=True)
class Pick:
    """The candidate of one network that is to be served.

    Attributes:
        row: the candidate, at batch 1.
        ties: servable candidates whose interval of p50 overlaps that of the fastest, ``row`` left
            out; empty where one is clearly the fastest.
    """

    row: Row
    ties: tuple[Row, ...]

    @property
    def tied(self) -> str:
        """Returns the ties in words: ``a and b``, or ``5 others``."""
        if len(self.ties) > _NAMED:
            return f"{len(self.ties)} others"
        return " and ".join(title(tie) for tie in self.ties)

    @property
    def sentence(self) -> str:
        """Returns the choice in words, with the ties that were broken."""
        row = self.row
        text = f"{row.network}: serve {title(row)}, p50 {p50(row) * 1e3:.2f} ms at batch 1"
        if self.ties:
            text += f" (a tie with {self.tied}: the higher precision first, then the lower p50)"
        return text


def title(row: Row) -> str:
    """Returns the artifact and runtime of a row: ``onnx-int8 in ort-cpu``."""
    return f"{row.format}-{row.precision} in {row.runtime}"


def servable(row: Row) -> bool:
    """Returns whether a server may use what ``row`` measured: verified, and without torch."""
    known = row.runtime is not None and is_servable(row.runtime)
    return row.latency is not None and row.unverified is None and known


def pick(sweep: Sweep, network: str) -> Pick | None:
    """Returns the fastest servable candidate of ``network`` at batch 1, or None without one.

    Candidates whose confidence interval of p50 overlaps that of the fastest are tied with it;
    of these the one of highest precision is taken, then the one with the lowest p50.
    """
    rows = [row for row in sweep.measured(network, batch=1) if servable(row)]
    if not rows:
        return None
    fastest = rows[0].latency
    tied = [row for row in rows if row.latency and fastest and overlap(row.latency, fastest)]
    best = min(tied, key=lambda row: (PRECISIONS.index(row.precision), p50(row)))
    return Pick(row=best, ties=tuple(row for row in tied if row is not best))


def pick_all(sweep: Sweep) -> dict[str, Pick]:
    """Returns network to :func:`pick`, of the networks that have one."""
    return {network: best for network in sweep.networks() if (best := pick(sweep, network))}


def write_pick(sweep: Sweep, chosen: Pick, artifacts: Path) -> Path:
    """Returns the file beside the artifacts that now tells the server what to use."""
    row = chosen.row
    return save_pick(
        artifacts / row.network, saved_pick_of(sweep, row, row.folder.rpartition("/")[2])
    )


def saved_pick_of(sweep: Sweep, row: Row, artifact: str) -> SavedPick:
    """Returns what a server must know of a measured row, with its ``artifact`` by this path."""
    machine = sweep.machine
    assert row.runtime is not None, "a measured row has a runtime"
    processor = machine.gpu if runs_on_gpu(row.runtime) else machine.cpu
    return SavedPick(
        artifact=artifact,
        runtime=row.runtime,
        batch=row.batch,
        threads=row.threads,
        p50_s=p50(row),
        machine=processor or "an unknown GPU",
    )
