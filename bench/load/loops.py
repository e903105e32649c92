"""Load on a server over HTTP, in a closed and in an open loop.

Closed: each connection waits for its answer before it sends again. The server sets the pace: it
shows what it can do at most, and hides how long it stalls, as it is asked less meanwhile. Open:
requests are due at given times, whatever the server does, and latency counts from when a request
was due, not from when it could be sent ("How NOT to Measure Latency", Gil Tene, 2013: coordinated
omission).

The client takes its time from the same processor as the server: both are in the figures.
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import selectors
import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np

from bench.load.http_client import Address, Connection, NoAnswer
from core.errors import UserError

RAMP = 0.1  # of a closed loop's time, at its start, in which answers are not counted as throughput
OPEN_CONNECTIONS = 128  # more than a server's queue should ever hold
_GRACE_S = 30  # for the last answers
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """The outcome of requests.

    Attributes:
        statuses: HTTP status, or why there was no answer, to its count.
        throughput: answers with status 200 per second.
        latencies: of those, in seconds, in the order they came.
    """

    statuses: dict[str, int]
    throughput: float
    latencies: tuple[float, ...]

    @property
    def errors(self) -> int:
        """Returns how many requests were not answered with status 200."""
        return sum(count for status, count in self.statuses.items() if status != "200")


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Returns what ``main`` returns, run in an event loop that wakes up on time.

    asyncio's usual loop sleeps in steps of 1 ms, which an open loop would count as latency; a
    garbage collection would be charged to whichever request it falls into.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        with asyncio.Runner(
            loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())
        ) as runner:
            return runner.run(main)
    finally:
        if collecting:
            gc.enable()


async def closed_loop(
    address: Address, requests: Sequence[bytes], *, connections: int, seconds: float
) -> Load:
    """Returns what came back while ``connections`` were kept busy for ``seconds``.

    Throughput counts the answers that came within that time, but for a tenth at its start.

    Raises:
        UserError: nobody listens there.
    """

    def orders() -> Iterator[tuple[int, float]]:
        for number in itertools.count():
            if (now := time.perf_counter()) >= start + seconds:
                return
            yield number, now

    async with _Client(address, connections) as client:
        start = time.perf_counter()
        await client.send(requests, orders(), until=start + seconds)
    first, last = start + RAMP * seconds, start + seconds
    counted = sum(first < when <= last for when in client.came)
    return client.load(counted / (last - first))


async def open_loop(
    address: Address,
    requests: Sequence[bytes],
    *,
    times: Sequence[float],
    connections: int = OPEN_CONNECTIONS,
) -> Load:
    """Returns what came back for a request at each of ``times``, in seconds from now, ascending.

    Raises:
        UserError: nobody listens there.
    """
    async with _Client(address, connections) as client:
        start = time.perf_counter()
        orders = ((number, start + due) for number, due in enumerate(times))
        await client.send(requests, orders, until=start + times[-1])
        elapsed = time.perf_counter() - start
    return client.load(len(client.came) / elapsed)


def fixed_times(rate: float, seconds: float) -> list[float]:
    """Returns when evenly spaced requests are due, ``rate`` a second; at least one."""
    return [number / rate for number in range(max(1, round(rate * seconds)))]


def poisson_times(rate: float, seconds: float, seed: int) -> list[float]:
    """Returns as many random times, those of many independent clients.

    Given their number, the times of a Poisson process are evenly distributed.
    """
    count = max(1, round(rate * seconds))
    return sorted(np.random.default_rng(seed).uniform(0, seconds, count).tolist())


class _Client:
    """Several connections to one server, and what came back over them."""

    def __init__(self, address: Address, connections: int) -> None:
        self.address = address
        self.connections = [Connection(address) for _ in range(connections)]
        self.statuses: Counter[str] = Counter()
        self.came: list[float] = []  # when each answer with status 200 was whole
        self.latencies: list[float] = []

    async def __aenter__(self) -> _Client:
        try:
            for connection in self.connections:
                await connection.open()
        except NoAnswer:
            raise UserError(
                f"{self.address.authority}: nobody listens there; start the server with: make serve"
            ) from None
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self.connections:
            connection.close()
        await asyncio.sleep(0)  # lets the transports end

    async def send(
        self, requests: Sequence[bytes], orders: Iterator[tuple[int, float]], until: float
    ) -> None:
        """Sends ``requests`` in turn: each of ``orders`` is the number of one and when it is due.

        What has no answer half a minute after ``until`` never has one.
        """

        async def work(connection: Connection) -> None:
            for number, due in orders:  # shared by all connections: each is taken once
                if (early := due - time.perf_counter()) > 0:
                    await asyncio.sleep(early)
                try:
                    status = str((await connection.send(requests[number % len(requests)])).status)
                except NoAnswer as error:
                    status = str(error)
                now = time.perf_counter()
                self.statuses[status] += 1
                if status == "200":
                    self.came.append(now)
                    self.latencies.append(now - due)
                elif status == "refused":
                    return  # the server is gone: to go on would only count refusals

        tasks = [asyncio.create_task(work(connection)) for connection in self.connections]
        limit = until + _GRACE_S - time.perf_counter()
        done, late = await asyncio.wait(tasks, timeout=limit)
        for task in late:
            task.cancel()
        self.statuses["no answer"] += len(late)
        for task in done:
            task.result()

    def load(self, throughput: float) -> Load:
        """Returns what came back."""
        return Load(
            statuses=dict(+self.statuses),
            throughput=throughput,
            latencies=tuple(round(seconds, 6) for seconds in self.latencies),
        )
