"""``python -m bench peers``: our picks beside ONNX Runtime, OpenVINO, LiteRT and others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from artifact.artifact import Artifact
from artifact.runtimes.base import runtime_packages
from bench.experiment import print_section, write_page
from bench.latency.plan import Grid, PlanFlags, find_artifacts, network_of
from bench.peers.measure import measure_network
from bench.peers.record import NAME, PeerRow, read_peers, write_peers
from bench.peers.registry import PEERS, peer_packages
from bench.peers.sections import peers_section
from core import machine
from core.cli import results
from core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Peers(PlanFlags):
    """Measure our picks beside what other toolchains make of the same networks.

    Each network of the artifacts is given to ONNX Runtime, OpenVINO with NNCF, LiteRT, ExecuTorch,
    ncnn and MNN, in the settings that their own documentation recommends. What is not installed is
    said.
    """

    model: str | None = None
    """Only this network; all if left out."""
    data: str | None = None
    """Only artifacts for this data; all if left out."""
    only: tuple[str, ...] = ()
    """Only these peers; all if left out."""
    litert_python: Path | None = None
    """Python of an environment with litert-torch and litert-quantizer, if they are not in this."""
    keep: Path | None = None
    """Folder in which the peers' files stay, so that another run need not make them again."""
    extra: int = 12
    """Most further rounds of ours and peers that tie for the fastest of a network; 0: none."""
    show: bool = False
    """Measure nothing, and show what was measured last."""
    fresh: bool = False
    """Measure networks again that were measured here, with the same versions and plan."""
    artifacts: Path = Path("artifacts")
    """Folder of all artifacts."""
    out: Path = Path("reports")
    """Folder for peers.jsonl and peers.md."""

    def __call__(self) -> None:
        """Measures, writes the page, and prints its tables."""
        for name in self.only:
            PEERS.find(name)
        rows = read_peers(self.out)
        here = machine.this_machine((*runtime_packages(), *peer_packages()))
        if not self.show:
            rows = self._measure(rows, here)
        elif not rows:
            raise UserError(f"{self.out}: no {NAME}.jsonl here; leave out --show to measure")
        else:
            here = rows[-1].machine
        section = peers_section([row for row in rows if row.machine.key == here.key])
        page = write_page(section, self.out / f"{NAME}.md")
        print_section(section)
        results().print(page)

    def _measure(self, rows: list[PeerRow], here: machine.Machine) -> list[PeerRow]:
        """Returns ``rows`` with those of the networks measured now; saved after each network."""
        plan = replace(self.plan(), extra=self.extra)
        peers = self.only or tuple(PEERS)
        pythons: Mapping[str, Path] = (
            {"litert": self.litert_python} if self.litert_python is not None else {}
        )
        for network, folders in self._networks().items():
            known = [r for r in rows if (r.network, r.machine.key) == (network, here.key)]
            done = {row.toolchain for row in known if row.plan == plan}
            if not self.fresh and done.issuperset(peers):
                continue
            artifacts = [Artifact.load(folder) for folder in folders]
            measured = measure_network(
                artifacts, plan, here, peers=peers, pythons=pythons, keep=self.keep
            )
            rows = [row for row in rows if row not in known] + measured
            write_peers(self.out, rows)
        return rows

    def _networks(self) -> dict[str, list[Path]]:
        """Returns the name of each network with the folders of its artifacts."""
        grid = Grid(artifacts=self.artifacts, model=self.model, data=self.data)
        found: dict[str, list[Path]] = {}
        for folder in find_artifacts(grid):
            found.setdefault(network_of(self.artifacts, folder), []).append(folder)
        return found
