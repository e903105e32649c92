"""Load on a server over HTTP, in closed and open loops.

In a closed loop each connection waits for its response before it sends the next request. That
measures the highest throughput, but hides stalls, as a stalled server gets fewer requests. In an
open loop requests are due at given times, independently of the server, and latency is measured from
the time when a request was due, which avoids coordinated omission ("How NOT to Measure Latency",
Gil Tene, 2013).

The client runs on the same processor as the server, so the figures include its CPU time.
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

RAMP = 0.1  # fraction at the start of a closed loop that does not count for throughput
OPEN_CONNECTIONS = 128  # more than the queue of a server should hold
_GRACE_S = 30  # time limit for the last responses
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """The outcome of a loop.

    Attributes:
        statuses: HTTP status, or the reason for no response, to its count.
        throughput: responses with status 200 per second.
        latencies: latencies of the responses with status 200 in seconds, in order of arrival.
    """

    statuses: dict[str, int]
    throughput: float
    latencies: tuple[float, ...]

    @property
    def errors(self) -> int:
        """Returns the number of requests without a response of status 200."""
        return sum(count for status, count in self.statuses.items() if status != "200")


def run_loop(main: Coroutine[Any, Any, T]) -> T:
    """Runs ``main`` in an event loop with precise timers, and returns its result.

    asyncio's default loop sleeps in steps of 1 ms, which would add to the latency of an open loop.
    Garbage collection is off, as it would add to the latency of random requests.
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
    """Keeps ``connections`` busy for ``seconds`` and returns the outcome.

    Throughput counts the responses within that time, except in the first tenth.

    Raises:
        UserError: no server listens at ``address``.
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
    """Sends a request at each of ``times`` and returns the outcome.

    Args:
        address: where to send them.
        requests: whole requests, sent in turn.
        times: times in seconds from now, ascending.
        connections: number of connections.

    Raises:
        UserError: no server listens at ``address``.
    """
    async with _Client(address, connections) as client:
        start = time.perf_counter()
        orders = ((number, start + due) for number, due in enumerate(times))
        await client.send(requests, orders, until=start + times[-1])
        elapsed = time.perf_counter() - start
    return client.load(len(client.came) / elapsed)


def fixed_times(rate: float, seconds: float) -> list[float]:
    """Returns evenly spaced times in seconds, ``rate`` per second, at least one."""
    return [number / rate for number in range(max(1, round(rate * seconds)))]


def poisson_times(rate: float, seconds: float, seed: int) -> list[float]:
    """Returns random times in seconds, ``rate`` per second, as of many independent clients.

    Given their number, the times of a Poisson process are uniformly distributed.
    """
    count = max(1, round(rate * seconds))
    return sorted(np.random.default_rng(seed).uniform(0, seconds, count).tolist())


class _Client:
    """Several connections to a server, and the outcome of their requests."""

    def __init__(self, address: Address, connections: int) -> None:
        self.address = address
        self.connections = [Connection(address) for _ in range(connections)]
        self.statuses: Counter[str] = Counter()
        self.came: list[float] = []  # time at which each response of status 200 was complete
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
        await asyncio.sleep(0)  # lets the transports close

    async def send(
        self, requests: Sequence[bytes], orders: Iterator[tuple[int, float]], until: float
    ) -> None:
        """Sends ``requests`` in turn.

        Args:
            requests: whole requests.
            orders: (number of a request, modulo their count; time at which it is due).
            until: requests without a response 30 s after this time count as ``no answer``.
        """

        async def work(connection: Connection) -> None:
            for number, due in orders:  # one iterator, shared by all connections
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
                    return  # the server has ended, so further requests would be refused, too

        tasks = [asyncio.create_task(work(connection)) for connection in self.connections]
        limit = until + _GRACE_S - time.perf_counter()
        done, late = await asyncio.wait(tasks, timeout=limit)
        for task in late:
            task.cancel()
        self.statuses["no answer"] += len(late)
        for task in done:
            task.result()

    def load(self, throughput: float) -> Load:
        """Returns the outcome, with the given throughput."""
        return Load(
            statuses=dict(+self.statuses),
            throughput=throughput,
            latencies=tuple(round(seconds, 6) for seconds in self.latencies),
        )
