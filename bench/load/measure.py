"""Measures a running server: which artifact it answers with, and what it answers under load.

First a lone client before and after a burst, while the server has seen none. Then, in rounds of
random order, closed loops and the in-process limit, so that all see the same load. Last open
loops, at shares of the throughput that was found.
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

Case = dict[str, Any]  # attributes of a turn that say what it is
Sent = Mapping[tuple[str, Form], Sequence[bytes]]


def ask_server(address: Address, token: str | None = None) -> Served:
    """Returns what the server at ``address`` answers with.

    Raises:
        UserError: nobody listens there, or it is no server of ours.
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
    """Returns the artifact that ``served`` answers with, every file of it checked.

    Args:
        served: what the server says of itself.
        artifacts: where to look for it.
        folder: the artifact, if not below ``artifacts``.

    Raises:
        UserError: it is not there, or ``folder`` holds another one.
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
    """Returns the whole requests for each set of images in each form."""
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
        UserError: an answer is not a 200, and what the server says of it.
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
    """Returns all turns; ``tick`` is called after each.

    Args:
        address: of the server.
        requests: for each set of images in each form.
        limit: what there is without HTTP.
        plan: how much is measured.
        wrk: the program, for the closed loops; None for our own client.
        tick: called after each turn.

    Raises:
        UserError: the server is gone, or the limit cannot be measured.
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

    name, form = next(iter(requests))  # of all but the rounds
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
    """Returns the highest throughput of the closed loops: of their medians over the rounds."""
    return max(
        median(turns.throughputs(what="closed", connections=count, **wanted))
        for count in plan.connections
    )
