"""Measures a running server under load.

First a lone client before and after a burst, while the server is fresh. Then closed loops and the
in-process limit, in rounds of random order, so that all have the same background load. Finally open
loops, at fractions of the measured throughput.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from artifact.artifact import Artifact
from artifact.store import stored_artifacts
from bench.load.http_client import Address, Answer, Connection, NoAnswer, make_form, make_request
from bench.load.in_process import Limit
from bench.load.loops import Load, closed_loop, fixed_times, open_loop, poisson_times, run_loop
from bench.load.plan import BURST, Form, LoadPlan
from bench.load.record import Served, Turn, Turns
from bench.load.wrk import wrk_loop
from core.errors import UserError
from core.record_file import parse

Case = dict[str, Any]  # attributes of a turn except its round and load
Sent = Mapping[tuple[str, Form], Sequence[bytes]]


def ask_server(address: Address, token: str | None = None) -> Served:
    """Asks the server at ``address`` for its artifact and runtime.

    Raises:
        UserError: no server listens there, or it is not one of ours.
    """
    where = address.with_path("/model")

    async def main() -> Answer:
        connection = Connection(where)
        try:
            return await connection.send(make_request(where, token=token))
        finally:
            connection.close()

    try:
        answer = run_loop(main())
    except NoAnswer as error:
        gone = "nobody listens there; start the server with: make serve"
        raise UserError(f"{where.url}: {gone if str(error) == 'refused' else error}") from None
    if answer.status != 200:
        key = "; set POCKETNETS_TOKEN as the server has it" if answer.status == 401 else ""
        raise UserError(f"{where.url} is answered with {answer.status}, not 200{key}")
    return parse(Served, answer.body, where.url, remedy="load needs a server of make serve")


def find_artifact(served: Served, artifacts: Path, folder: Path | None = None) -> Artifact:
    """Finds and loads the artifact that the server uses, after checking all its files.

    Args:
        served: the server's artifact and runtime.
        artifacts: folder of all artifacts.
        folder: folder of the artifact, if it is not in ``artifacts``.

    Raises:
        UserError: it is not found, or ``folder`` holds another artifact.
    """
    if folder is not None:
        artifact = Artifact.load(folder)
        if not _is_served(artifact, served):
            raise UserError(
                f"{folder}: {artifact.model} ({artifact.data}, {artifact.precision}), not the "
                f"server's {served.name}, or with other files; name the folder that is served"
            )
        return artifact
    for one in stored_artifacts(artifacts):
        if one.artifact is not None and _is_served(one.artifact, served):
            return one.artifact
    raise UserError(
        f"{artifacts}: the server's {served.name} is not here, and the in-process limit needs it; "
        "name its folder with --artifact"
    )


def _is_served(artifact: Artifact, served: Served) -> bool:
    names = (artifact.model, artifact.data, artifact.precision)
    return (*names, artifact.sha256s) == (
        served.model,
        served.data,
        served.precision,
        served.sha256s,
    )


def make_requests(
    address: Address,
    images: Mapping[str, Sequence[bytes]],
    forms: Sequence[Form],
    token: str | None = None,
) -> dict[tuple[str, Form], list[bytes]]:
    """Returns (set of images, form) to the complete requests, as bytes."""
    found: dict[tuple[str, Form], list[bytes]] = {}
    for name, files in images.items():
        for form in forms:
            bodies = [
                make_form(file) if form == "multipart" else (file, "application/octet-stream")
                for file in files
            ]
            found[name, form] = [make_request(address, *body, token=token) for body in bodies]
    return found


def check_requests(address: Address, requests: Sent) -> None:
    """Sends every request once, one after the other.

    Raises:
        UserError: a status is not 200; the message has the server's text.
    """

    async def main() -> None:
        connection = Connection(address)
        try:
            for (name, form), each in requests.items():
                for number, request in enumerate(each, start=1):
                    await check(connection, request, f"image {number} of {name}, {form}")
        finally:
            connection.close()

    async def check(connection: Connection, request: bytes, what: str) -> None:
        try:
            answer = await connection.send(request)
        except NoAnswer as error:
            refused = str(error) == "refused"
            advice = "start the server with: make serve" if refused else "its log may say why"
            raise UserError(f"{address.authority}: no answer ({error}); {advice}") from None
        if answer.status != 200:
            said = ascii(answer.body[:200].decode(errors="replace"))
            raise UserError(
                f"{address.path}: {what}, is answered with {answer.status}: {said}; "
                "load needs a server that answers 200"
            )

    run_loop(main())


def measure_load(
    address: Address,
    requests: Sent,
    limit: Limit,
    plan: LoadPlan,
    *,
    wrk: str | None = None,
    tick: Callable[[], object] = lambda: None,
) -> Turns:
    """Measures the server and the in-process limit, and returns all turns.

    Args:
        address: address of the server.
        requests: from :func:`make_requests`.
        limit: the in-process limit.
        plan: how much to measure.
        wrk: path of wrk, for the closed loops; None for our own client.
        tick: called after each turn.

    Raises:
        UserError: the server has ended, or the limit cannot be measured.
    """
    turns: list[Turn] = []
    rng = random.Random(plan.seed)

    def take(case: Case, load: Callable[[], Load], round: int = 0) -> None:
        turns.append(Turn(**case, round=round, load=load()))
        tick()

    def closed(case: Case, seconds: float) -> Load:
        sent, connections = requests[case["images"], case["form"]], case["connections"]
        if wrk is not None and case["what"] == "closed":
            return wrk_loop(wrk, address, sent, connections=connections, seconds=seconds)
        return run_loop(closed_loop(address, sent, connections=connections, seconds=seconds))

    def opened(case: Case, rate: float) -> Load:
        even = case["arrivals"] == "fixed"
        make = fixed_times if even else partial(poisson_times, seed=rng.randrange(2**32))
        sent = requests[case["images"], case["form"]]
        return run_loop(open_loop(address, sent, times=make(rate, plan.open_seconds)))

    def inside(case: Case) -> Load:
        rate = limit.throughput(case["images"], plan.seconds)
        return Load(statuses={}, throughput=rate, latencies=())

    name, form = next(iter(requests))  # used in the burst and the open loops
    first: Case = {"images": name, "form": form}
    for what, connections in (("before", 1), ("burst", BURST), ("after", 1)):
        case = {"what": what, **first, "connections": connections}
        take(case, partial(closed, case, plan.lone_seconds))
    cases: list[Case] = [
        {"what": "closed", "images": images, "form": form, "connections": connections}
        for images, form in requests
        for connections in plan.connections
    ]
    cases += [
        {"what": "in process", "images": images} for images in {key[0]: 0 for key in requests}
    ]
    for round in range(plan.rounds):
        for case in rng.sample(cases, len(cases)):
            inner = case["what"] == "in process"
            take(
                case, partial(inside, case) if inner else partial(closed, case, plan.seconds), round
            )
    most = capacity(Turns(tuple(turns)), plan, **first)
    if most == 0:
        raise UserError(f"{address.path}: no answer within {plan.seconds:g} s; give more --seconds")
    cases = [
        {"what": "open", **first, "arrivals": arrivals, "share": share}
        for arrivals in plan.arrivals
        for share in plan.shares
    ]
    for round in range(plan.open_rounds):
        for case in rng.sample(cases, len(cases)):
            take(case, partial(opened, case, case["share"] * most), round)
    return Turns(tuple(turns))


def capacity(turns: Turns, plan: LoadPlan, **wanted: object) -> float:
    """Returns the highest throughput of the closed loops, each the median of its rounds."""
    return max(
        median(turns.throughputs(what="closed", connections=count, **wanted))
        for count in plan.connections
    )
