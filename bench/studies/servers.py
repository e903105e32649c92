"""Compares our server with others: ``python -m bench study servers --artifact FOLDER``.

The others are a BentoML endpoint as in its quickstart, and LitServe. All use the same artifact and
runtime, single-threaded calls, and one worker per core. All run at the same time on this machine
and are loaded in turns.
"""

from __future__ import annotations

import importlib.util
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from artifact.artifact import ARTIFACTS, Artifact
from artifact.runtimes.base import list_runtimes
from artifact.store import read_pick
from bench.experiment import progress_bars, this_machine, write_page
from bench.load.http_client import Address, Connection, NoAnswer
from bench.load.loops import closed_loop, run_loop
from bench.load.measure import check_requests, make_requests
from bench.load.plan import SIZES, Form, photos
from bench.load.record import Turn, Turns
from bench.load.sections import percentiles, statuses
from bench.measure.spread import FEWEST, Spread
from bench.studies.plain import PORT, RUNTIME, VARIABLE
from core.errors import UserError
from core.machine import Machine
from core.record_file import RecordFile
from report.section import Section, Table

ROOT = Path(__file__).resolve().parents[2]
_HOST, _PATH = "127.0.0.1", "/predict"
_START_S, _STOP_S = 60, 20
OURS = "ours"
NAME = "servers"
CONNECTIONS = (8, 32)
ROUNDS, SECONDS = 7, 1.5
# Targets for the ratio of our throughput to theirs.
TARGETS = {"BentoML": 1.15, "LitServe": 1.1}
_WIDTH, _HEIGHT = SIZES[0]
IMAGES = f"{_WIDTH}x{_HEIGHT}"
Server = tuple[str, Form]  # name of a server, and how images are sent


class NotStarted(UserError):
    """A server that did not start; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Contender:
    """A server to compare.

    Attributes:
        name: name in the report.
        forms: how images are sent to it.
        package: import name of the package that it needs.
        extra: extra that installs the package; None if the project always needs it.
        command: takes the artifact's folder and a port and returns the arguments of Python.
    """

    name: str
    forms: tuple[Form, ...]
    package: str
    extra: str | None
    command: Callable[[Path, int], list[str]]

    @property
    def missing(self) -> str | None:
        """Returns why it cannot run here, or None."""
        if importlib.util.find_spec(self.package) is not None:
            return None
        return f"{self.package} is not installed; pip install '.[{self.extra}]'"


def _ours(artifact: Path, port: int) -> list[str]:
    options = ["--artifact", str(artifact), "--runtime", RUNTIME, "--port", str(port)]
    return ["-m", "serving", *options, "--allow-unverified"]


def _bentoml(artifact: Path, port: int) -> list[str]:
    options = ["--host", _HOST, "--port", str(port), "--working-dir", str(ROOT)]
    return ["-m", "bentoml", "serve", "bench.studies.plain_bentoml:Plain", *options]


def _litserve(artifact: Path, port: int) -> list[str]:
    return ["-m", "bench.studies.plain_litserve"]


CONTENDERS = (
    Contender(name=OURS, forms=("multipart", "raw"), package="bentoml", extra=None, command=_ours),
    Contender(
        name="BentoML", forms=("multipart",), package="bentoml", extra=None, command=_bentoml
    ),
    Contender(
        name="LitServe",
        forms=("multipart",),
        package="litserve",
        extra="servers",
        command=_litserve,
    ),
)


@contextmanager
def started(contender: Contender, artifact: Path, image: bytes) -> Iterator[Address]:
    """Starts ``contender`` and yields its address once it responds with 200; ends it after that.

    Args:
        contender: the server to start.
        artifact: folder of the artifact.
        image: an encoded image for a test request.

    Raises:
        NotStarted: it ends, or does not respond with 200 in time.
    """
    address = Address(_HOST, _free_port(), _PATH)
    ours = ("POCKETNETS_", "BENTOML_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(ours)}
    environment |= {VARIABLE: str(artifact.absolute()), PORT: str(address.port)}
    environment |= {"BENTOML_DO_NOT_TRACK": "True"}
    form = contender.forms[0]
    (request,) = make_requests(address, {"": [image]}, [form])["", form]
    with tempfile.TemporaryFile() as log:
        # In its own session, so that all its workers can be ended.
        process = subprocess.Popen(
            [sys.executable, *contender.command(artifact.absolute(), address.port)],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            if (reason := _wait(process, address, request)) is not None:
                log.seek(0)
                last = log.read().decode(errors="replace").strip().rpartition("\n")[2]
                raise NotStarted(f"{reason}; the last line of its log: {last[:200]!a}")
            yield address
        finally:
            _end(process)


def _wait(process: subprocess.Popen[bytes], address: Address, request: bytes) -> str | None:
    """Returns None once the status of ``request`` is 200, or why it never is."""

    async def main() -> str:
        connection = Connection(address)
        try:
            return str((await connection.send(request)).status)
        except NoAnswer as error:
            return str(error)
        finally:
            connection.close()

    said, deadline = "refused", time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return f"it ended with status {process.returncode}"
        if (said := run_loop(main())) == "200":
            return None
        if said.startswith("4"):  # the server is up and rejects the image
            return f"it answers {said}"
        time.sleep(0.2)
    return f"no answer 200 within {_START_S} s, but {said}"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_S)
    with suppress(ProcessLookupError):  # all its processes have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True, kw_only=True)
class ServersHeader:
    """The first line of the file.

    Attributes:
        schema: schema version of the file.
        artifact: model, data and precision, as text.
        missing: name of a server that was not measured, to the reason.
        seconds: duration of a turn.
        rounds: number of turns of each case.
        machine: the machine.
    """

    schema: int = 1
    artifact: str
    missing: dict[str, str]
    seconds: float
    rounds: int
    machine: Machine


RECORDS = RecordFile(ServersHeader, Turn, schema=1)


def run(name: str, out: Path, *, artifact: Path | None = None, **options: Any) -> Path:
    """Runs the study (:func:`run_servers`) and returns the path of its page.

    Raises:
        UserError: no artifact is given, and none was picked.
    """
    if artifact is None and (pick := read_pick(ARTIFACTS)) is not None:
        artifact = ARTIFACTS / pick.artifact
    if artifact is None:
        raise UserError("no artifact to serve: name its folder with --artifact")
    return run_servers(artifact, out, **options)


def run_servers(folder: Path, out: Path, *, rounds: int = ROUNDS, seconds: float = SECONDS) -> Path:
    """Measures all servers; writes ``study-servers.md``, whose path is returned, and the turns.

    Args:
        folder: folder of the artifact.
        out: folder of ``study-servers.md`` and ``study-servers.jsonl``.
        rounds: number of turns of each server at each number of connections.
        seconds: duration of a turn.

    Raises:
        UserError: the artifact cannot be served, or our own server does not start.
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
        with progress_bars() as bar:
            tick = bar("Measuring", rounds * len(requests) * len(CONNECTIONS))
            turns = take_turns(requests, rounds=rounds, seconds=seconds, tick=tick)
    header = ServersHeader(
        artifact=f"{artifact.model} ({artifact.data}, {artifact.precision})",
        missing=missing,
        seconds=seconds,
        rounds=rounds,
        machine=this_machine(),
    )
    RECORDS.write(out / f"study-{NAME}.jsonl", header, turns.all)
    return write_page(servers_section(header, turns), out / f"study-{NAME}.md")


def take_turns(
    requests: Mapping[Server, tuple[Address, list[bytes]]],
    *,
    rounds: int,
    seconds: float,
    tick: Callable[[], object] = lambda: None,
    seed: int = 0,
) -> Turns:
    """Runs a closed loop for each server, number of connections and round, in random order."""
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
    """Returns the section with each server's throughput, and the ratios of ours to the others."""
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
    """Returns our throughput, with images sent in ``form``, over that of ``other``."""
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
