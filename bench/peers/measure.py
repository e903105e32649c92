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
from bench.latency.pick import preferred
from bench.measure.timing import Call, Latency, Plan, measure
from bench.peers.candidates import Candidate, Candidates
from bench.peers.prepare import kept_folder, make_files, why_missing, write_material
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
    keep: Path | None = None,
) -> list[PeerRow]:
    """Returns a row for each artifact in each runtime, and for each setting of each peer.

    All run one image with one thread, by turns in one process. Ours and peers that tie for the
    fastest take the extra rounds of ``plan``.

    Args:
        artifacts: those of one network.
        plan: number of samples and rounds.
        machine: this machine, for the rows.
        peers: names of the peers to measure.
        pythons: name of a peer to the Python of the environment that has its tools, if not this.
        keep: folder in which the peers' files stay, and are found by the next run; None for none.

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
    with ExitStack() as stack, progress_bars() as bar:
        if keep is None:
            root = Path(stack.enter_context(TemporaryDirectory()))
        else:
            root = kept_folder(keep / blank.network, network, machine)
        candidates = Candidates(network, blank, stack)
        for artifact in artifacts:
            found += candidates.ours(artifact)
        material = None
        tick = bar(f"{blank.network}: made by peers", len(peers))
        for peer in peers:
            spec, folder, failed = PEERS[peer], root / peer, {}
            if (missing := why_missing(spec)) is None:
                material = material or write_material(network, root)
                failed = make_files(spec, material, folder, pythons.get(peer))
            found += candidates.peer(spec, folder, failed, missing)
            tick()
        calls: dict[int, Call] = {
            index: partial(one.infer, candidates.pixels[:1])
            for index, one in enumerate(found)
            if one.infer
        }
        tick = bar(f"{blank.network}: measured", len(calls) * (plan.rounds + 1))
        rows = {index: found[index].row for index in calls}
        latencies = measure(
            calls, plan, one_thread=calls, tick=tick, undecided=partial(tied_with_peers, rows)
        )
    return [replace(one.row, latency=latencies.get(index)) for index, one in enumerate(found)]


def tied_with_peers(rows: Mapping[int, PeerRow], latencies: Mapping[int, Latency]) -> list[int]:
    """Returns the candidates that tie for the fastest that holds its gates.

    An empty list if all of them are ours, or all are peers': then it is known whose is faster.
    """
    able = [index for index, row in rows.items() if row.missed is None]
    if not able:
        return []
    _, places = preferred(
        [rows[index].precision for index in able], [latencies[index] for index in able]
    )
    tied = [able[place] for place in places]
    return tied if len({rows[index].toolchain == OURS for index in tied}) == 2 else []
