"""Measures our artifacts and the peers of a network, interleaved in one process."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from artifact.artifact import Artifact
from bench.experiment import progress_bars
from bench.measure.timing import Call, Plan, measure
from bench.peers.candidates import Candidate, Candidates
from bench.peers.prepare import make_files, why_missing, write_material
from bench.peers.record import OURS, PeerRow
from bench.peers.registry import PEERS
from core.conditions import now
from core.machine import Machine
from export.verify import network_of


def measure_network(
    artifacts: Sequence[Artifact],
    plan: Plan,
    machine: Machine,
    *,
    peers: Collection[str],
    pythons: Mapping[str, Path],
) -> list[PeerRow]:
    """Returns a row for each artifact in each runtime, and for each setting of each peer.

    All run one image with one thread, by turns in one process.

    Args:
        artifacts: those of one network.
        plan: number of samples and rounds.
        machine: this machine, for the rows.
        peers: names of the peers to measure.
        pythons: name of a peer to the Python of the environment that has its tools, if not this.

    Raises:
        UserError: the network that they were made from is not at hand.
    """
    first = artifacts[0]
    network = network_of(first)
    blank = PeerRow(
        network=f"{first.model}-{first.data}",
        macs=first.macs,
        weights=first.weights,
        toolchain=OURS,
        setting="",
        precision="fp32",
        plan=plan,
        machine=machine,
        when=now(),
    )
    found: list[Candidate] = []
    with TemporaryDirectory() as name, ExitStack() as stack, progress_bars() as bar:
        candidates = Candidates(network, blank, stack)
        for artifact in artifacts:
            found += candidates.ours(artifact)
        material = None
        tick = bar(f"{blank.network}: made by peers", len(peers))
        for peer in peers:
            spec, folder, failed = PEERS[peer], Path(name, peer), {}
            if (missing := why_missing(spec)) is None:
                material = material or write_material(network, Path(name))
                failed = make_files(spec, material, folder, pythons.get(peer))
            found += candidates.peer(spec, folder, failed, missing)
            tick()
        calls: dict[int, Call] = {
            index: partial(one.infer, candidates.pixels[:1])
            for index, one in enumerate(found)
            if one.infer
        }
        tick = bar(f"{blank.network}: measured", len(calls) * (plan.rounds + 1))
        latencies = measure(calls, plan, one_thread=calls, tick=tick)
    return [replace(one.row, latency=latencies.get(index)) for index, one in enumerate(found)]
