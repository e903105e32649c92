"""Our server beside others: ``python -m bench study servers --artifact FOLDER``.

The same artifact in the same runtime, single-threaded calls, as many workers as cores, behind our
server, a BentoML endpoint as its quickstart shows it, and LitServe. All run side by side on this
machine and are loaded in turns.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from rich.progress import Progress

from artifact.artifact import ARTIFACTS, Artifact
from artifact.runtimes.base import list_runtimes
from artifact.store import read_pick
from bench.load.http_client import Address
from bench.load.images import SIZES, photos
from bench.load.loops import closed_loop, run_loop
from bench.load.run import check_requests, make_requests
from bench.load.section import percentiles, statuses
from bench.load.turns import Form, Turn, Turns
from bench.measure.machine import this_machine
from bench.measure.spread import FEWEST, Spread
from bench.studies.contenders import CONTENDERS, OURS, started
from bench.studies.page import write_study
from bench.studies.plain import RUNTIME
from core.cli import notes
from core.errors import UserError
from core.machine import Machine
from core.record_file import RecordFile
from report.section import Section, Table

NAME = "servers"
CONNECTIONS = (8, 32)
ROUNDS, SECONDS = 7, 1.5
# How many times their throughput ours should be.
TARGETS = {"BentoML": 1.15, "LitServe": 1.1}
_WIDTH, _HEIGHT = SIZES[0]
IMAGES = f"{_WIDTH}x{_HEIGHT}"

Server = tuple[str, Form]  # name, and how images are sent to it


@dataclass(frozen=True, kw_only=True)
class ServersHeader:
    """What all turns share.

    Attributes:
        schema: of this header and of the turns.
        artifact: model, data and precision.
        missing: name of each server that was not measured, to the reason.
        seconds: of a turn.
        rounds: turns of each case.
        machine: where it was measured.
    """

    schema: int = 1
    artifact: str
    missing: dict[str, str]
    seconds: float
    rounds: int
    machine: Machine


RECORDS = RecordFile(ServersHeader, Turn, schema=1)


def run(name: str, out: Path, *, artifact: Path | None = None, **options: Any) -> Path:
    """Returns the page of the study; see :func:`run_servers`.

    Raises:
        UserError: no artifact is named, and none was picked.
    """
    if artifact is None and (pick := read_pick(ARTIFACTS)) is not None:
        artifact = ARTIFACTS / pick.artifact
    if artifact is None:
        raise UserError("no artifact to serve: name its folder with --artifact")
    return run_servers(artifact, out, **options)


def run_servers(folder: Path, out: Path, *, rounds: int = ROUNDS, seconds: float = SECONDS) -> Path:
    """Returns ``out/study-servers.md``; ``study-servers.jsonl`` beside it holds every turn.

    Args:
        folder: of the artifact.
        out: folder of both files.
        rounds: turns of each server at each number of connections.
        seconds: of a turn.

    Raises:
        UserError: an artifact that cannot be served, or our own server does not start.
    """
    artifact = Artifact.load(folder)
    if RUNTIME not in list_runtimes(artifact.format):
        raise UserError(f"{folder}: {RUNTIME} does not run {artifact.name}; name an onnx artifact")
    if rounds < FEWEST or seconds <= 0:
        raise UserError(
            f"rounds are {rounds}, seconds {seconds:g}: at least {FEWEST} and more than 0 are "
            "needed"
        )
    files = {IMAGES: photos(_WIDTH, _HEIGHT)}
    requests: dict[Server, tuple[Address, list[bytes]]] = {}
    missing: dict[str, str] = {}
    with ExitStack() as stack:
        for contender in CONTENDERS:
            if (reason := contender.missing) is not None:
                missing[contender.name] = reason
                continue
            forms = contender.forms
            try:
                address = stack.enter_context(started(contender, folder, files[IMAGES][0]))
                made = make_requests(address, files, forms)
                check_requests(address, made)
            except UserError as error:
                if contender.name == OURS:
                    raise
                missing[contender.name] = str(error)
                continue
            for form in forms:
                requests[contender.name, form] = address, made[IMAGES, form]
        # Drawn only between turns: a refreshing thread would take its time out of the samples.
        with Progress(console=notes(), auto_refresh=False) as progress:
            total = rounds * len(requests) * len(CONNECTIONS)
            task = progress.add_task("Measuring", total=total)
            tick = partial(progress.update, task, advance=1, refresh=True)
            turns = take_turns(requests, rounds=rounds, seconds=seconds, tick=tick)
    header = ServersHeader(
        artifact=f"{artifact.model} ({artifact.data}, {artifact.precision})",
        missing=missing,
        seconds=seconds,
        rounds=rounds,
        machine=this_machine(),
    )
    RECORDS.write(out / f"study-{NAME}.jsonl", header, turns.all)
    return write_study(NAME, servers_section(header, turns), out)


def take_turns(
    requests: Mapping[Server, tuple[Address, list[bytes]]],
    *,
    rounds: int,
    seconds: float,
    tick: Callable[[], object] = lambda: None,
    seed: int = 0,
) -> Turns:
    """Returns a closed loop for each server, number of connections and round, in turns."""
    rng = random.Random(seed)
    cases = list(product(requests, CONNECTIONS))
    turns = []
    for round in range(rounds):
        for (server, form), connections in rng.sample(cases, len(cases)):
            address, sent = requests[server, form]
            load = run_loop(closed_loop(address, sent, connections=connections, seconds=seconds))
            turns.append(
                Turn(
                    what="closed",
                    server=server,
                    images=IMAGES,
                    form=form,
                    connections=connections,
                    round=round,
                    load=load,
                )
            )
            tick()
    return Turns(tuple(turns))


def servers_section(header: ServersHeader, turns: Turns) -> Section:
    """Returns each server's throughput, and how many times another's ours is."""
    measured = [name for name in TARGETS if name not in header.missing]
    sentences = []
    for name, connections in product(measured, CONNECTIONS):
        ratio, target = _ratio(turns, name, connections), TARGETS[name]
        sentences.append(
            f"{connections} connections: ours has {ratio} times the throughput of {name}; at "
            f"least {target:.2f} is asked: {ratio.at_least(target)}."
        )
    sentences += [f"{name} was not measured: {why}." for name, why in header.missing.items()]
    machine = header.machine
    return Section(
        title=f"{header.artifact} behind several servers",
        sentences=tuple(sentences),
        tables=(_table(header, turns),),
        notes=(
            f"Measured on {machine.cpu}, {machine.cores} usable cores, {machine.os}: turns of "
            f"{header.seconds:g} s in random order, {header.rounds} rounds; {IMAGES} JPEGs; "
            f"{RUNTIME}, one thread a call, {machine.cores} workers or threads each.",
            "Ratios are the median of each round's ratio (least to greatest), like for like: both "
            "take multipart forms. ours, raw: the same server, sent the bytes alone.",
            "The client, our own, takes its time from the same processor as the servers.",
        ),
    )


def _ratio(turns: Turns, other: str, connections: int, form: Form = "multipart") -> Spread:
    """Returns the throughput of ours, sent images in ``form``, over that of ``other``."""
    ours = turns.throughputs(server=OURS, form=form, connections=connections)
    return Spread.ratio(ours, turns.throughputs(server=other, connections=connections))


def _table(header: ServersHeader, turns: Turns) -> Table:
    names = (
        *("Server", "Sent", "Connections", "Images/s", "least", "greatest"),
        *("p50 ms", "p99 ms", "Answers"),
    )
    rows = []
    servers = dict.fromkeys((turn.server, turn.form) for turn in turns.all)
    for (server, form), connections in product(sorted(servers), CONNECTIONS):
        case = {"server": server, "form": form, "connections": connections}
        rates = Spread.of(turns.throughputs(**case))
        figures = (f"{value:,.1f}" for value in (rates.median, rates.low, rates.high))
        times = percentiles(turns.latency(**case), 50, 99)
        cells = (str(server), str(form), str(connections), *figures, *times)
        rows.append((*cells, statuses(turns.loads(**case))))
    rows += [(name, *"-" * 7, why) for name, why in header.missing.items()]
    return Table(header=names, rows=tuple(rows), numeric=frozenset(names[2:8]))
