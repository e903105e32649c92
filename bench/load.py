"""A client that keeps a server busy over HTTP and counts what comes back. No torch here.

It takes its time from the same processor as the server: both are in the figures.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import Counter
from dataclasses import dataclass

import httpx

from bench.timing import Latency
from models.errors import UserError


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What a server did under load.

    Attributes:
        statuses: HTTP status or the name of a transport error, to its count.
        latency: of the answers with status 200, each a wall-clock time at the client; None if
            there was none.
        seconds: wall-clock time from the first request to the last answer.
    """

    statuses: dict[str, int]
    latency: Latency | None
    seconds: float

    @property
    def throughput(self) -> float:
        """Returns answers with status 200 per second."""
        return self.statuses.get("200", 0) / self.seconds


def check_loopback(url: str) -> None:
    """Raises UserError unless ``url`` is HTTP on this machine: load is for one's own server."""
    try:
        scheme, host = httpx.URL(url).scheme, httpx.URL(url).host
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except (httpx.InvalidURL, ValueError):  # no URL, or a host that is a name
        scheme, loopback = "", False
    if scheme != "http" or not loopback:
        raise UserError(
            f"url is {url!r}: load is sent only to http://127.0.0.1:PORT, ::1 or localhost; "
            "for another machine, run this there"
        )


async def send_load(
    url: str, images: list[bytes], *, connections: int, count: int, seconds: float
) -> Load:
    """Returns what came back from ``url`` for at most ``count`` requests or ``seconds``.

    A closed loop: each of ``connections`` posts an image, waits for the answer, posts the next.
    So the server sets the pace, and a stalled server is asked less: read p99 with that in mind.

    Raises:
        UserError: a host that is not this machine, or nobody listens there.
    """
    check_loopback(url)
    if min(connections, count) < 1 or seconds <= 0 or not images:
        raise UserError("connections and count must be at least 1, seconds above 0, images given")
    statuses: Counter[str] = Counter()
    samples: list[float] = []
    numbers = iter(range(count))
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    headers = {"content-type": "application/octet-stream"}
    # trust_env off: a proxy from the environment would be measured, and has no business here.
    client = httpx.AsyncClient(headers=headers, limits=limits, timeout=30, trust_env=False)
    start = time.perf_counter()

    async def work() -> None:
        for number in numbers:  # shared by all connections: each number is taken once
            if time.perf_counter() - start >= seconds:
                return
            sent = time.perf_counter()
            try:
                answer = await client.post(url, content=images[number % len(images)])
            except httpx.TransportError as error:
                statuses[type(error).__name__] += 1
                if isinstance(error, httpx.ConnectError):
                    return  # refused at once: to go on would only count to ``count`` in no time
                continue
            statuses[str(answer.status_code)] += 1
            if answer.status_code == 200:
                samples.append(time.perf_counter() - sent)

    async with client:
        await asyncio.gather(*(work() for _ in range(connections)))
    elapsed = time.perf_counter() - start
    if set(statuses) == {"ConnectError"}:
        raise UserError(f"{url}: nobody listens there; start the server with: make serve")
    latency = Latency(turns=(tuple(samples),), warmup=0) if samples else None
    return Load(statuses=dict(statuses), latency=latency, seconds=elapsed)
