from __future__ import annotations

import asyncio
import itertools
import socket
import time
from collections.abc import Callable

import numpy as np
import pytest

import bench.load.loops
from bench.load.http_client import Address, make_request
from bench.load.loops import Load, closed_loop, fixed_times, open_loop, poisson_times, run_loop
from core.errors import UserError

Reply = Callable[..., bytes]
Serve = Callable[..., Address]
STALL = 0.5  # seconds


def requests(address: Address, *bodies: bytes) -> list[bytes]:
    return [make_request(address, body, "image/png") for body in bodies]


def test_statuses_and_latencies_are_counted(serve: Serve, reply: Reply) -> None:
    async def handler(head: bytes, body: bytes) -> bytes | None:
        if body == b"none":
            return None
        return reply(400 if body == b"bad" else 200)

    address = serve(handler)
    sent = requests(address, b"an image", b"bad", b"another", b"none")
    load = run_loop(open_loop(address, sent, times=[0.0] * 40, connections=3))
    assert load.statuses == {"200": 20, "400": 10, "closed": 10}
    assert len(load.latencies) == 20
    assert load.errors == 20
    assert min(load.latencies) > 0


def test_throughput_is_what_the_server_gives(
    serve: Serve, reply: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A server that answers its requests together, ten times: 30 of them over 3 connections.
    pauses = itertools.count()

    async def handler(head: bytes, body: bytes) -> bytes:
        await asyncio.sleep(0.01 if next(pauses) < 30 else 60)
        return reply()

    monkeypatch.setattr(bench.load.loops, "_GRACE_S", 0.1)
    address = serve(handler)
    load = run_loop(closed_loop(address, requests(address, b"x"), connections=3, seconds=1))
    assert load.statuses == {"200": 30, "no answer": 3}
    assert load.errors == 3
    counted = load.throughput * (1 - bench.load.loops.RAMP)
    assert counted == pytest.approx(round(counted))  # a whole number of answers in that time
    assert 0 <= counted <= 30


def test_no_good_answer_is_no_latency(serve: Serve, reply: Reply) -> None:
    async def handler(head: bytes, body: bytes) -> bytes:
        return reply(429)

    address = serve(handler)
    load = run_loop(open_loop(address, requests(address, b"x"), times=[0.0] * 5))
    assert load == Load(statuses={"429": 5}, throughput=0.0, latencies=())


def test_a_stall_shows_in_an_open_loop_and_hides_in_a_closed_one(
    serve: Serve, reply: Reply
) -> None:
    numbers = itertools.count()

    async def handler(head: bytes, body: bytes) -> bytes:
        if next(numbers) in (20, 120):  # once in each loop
            time.sleep(STALL)  # the whole server stands still
        return reply()

    def late(load: Load) -> int:
        return sum(latency > 0.4 * STALL for latency in load.latencies)

    address = serve(handler)
    sent = requests(address, b"x")
    opened = run_loop(open_loop(address, sent, times=fixed_times(100, 1.0)))
    assert opened.statuses == {"200": 100}
    # 100 a second are due all the while: 30 of them in the first 0.3 s of the stall.
    assert late(opened) >= 30
    assert np.percentile(opened.latencies, 99) > 0.8 * STALL
    # The closed loop asks nothing meanwhile: a single request has met the stall.
    closed = run_loop(closed_loop(address, sent, connections=1, seconds=2 * STALL))
    assert max(closed.latencies) >= STALL
    assert late(closed) < late(opened)
    assert np.percentile(closed.latencies, 50) < 0.4 * STALL


def test_latency_counts_from_when_a_request_was_due(serve: Serve, reply: Reply) -> None:
    async def handler(head: bytes, body: bytes) -> bytes:
        await asyncio.sleep(0.05)
        return reply()

    address = serve(handler)
    load = run_loop(open_loop(address, requests(address, b"x"), times=[0.0] * 4, connections=1))
    # One connection for four at once: the last has waited for the three before it.
    assert load.latencies == tuple(sorted(load.latencies))
    assert load.latencies[-1] >= 4 * 0.05


def test_a_server_that_goes_away_ends_the_loop(serve: Serve, reply: Reply) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = Address("127.0.0.1", listener.getsockname()[1], "/")

        async def main() -> Load:
            loop = asyncio.get_running_loop()
            running = asyncio.create_task(
                closed_loop(address, requests(address, b"x"), connections=2, seconds=60)
            )
            listener.setblocking(False)
            accepted = [await loop.sock_accept(listener) for _ in range(2)]
            listener.close()
            for connection, _ in accepted:
                connection.close()
            return await running

        load = run_loop(main())
    assert load.statuses["refused"] == 2
    assert load.throughput == 0


def test_nobody_listening_is_one_clear_line() -> None:
    with socket.socket() as held:  # bound, not listening: nobody else can take the port
        held.bind(("127.0.0.1", 0))
        address = Address("127.0.0.1", held.getsockname()[1], "/predict")
        with pytest.raises(UserError, match=f"^127.0.0.1:{address.port}: nobody listens there"):
            run_loop(closed_loop(address, [b""], connections=2, seconds=5))


def test_arrivals_have_the_rate_that_is_asked() -> None:
    assert fixed_times(4, 1.0) == [0.0, 0.25, 0.5, 0.75]
    assert fixed_times(0.1, 1.0) == [0.0]
    times = poisson_times(200, 50, seed=1)
    assert len(times) == 10_000
    assert times == sorted(times) == poisson_times(200, 50, seed=1)
    assert times != poisson_times(200, 50, seed=2)
    gaps = np.diff(times)  # exponential: the standard deviation is the mean
    assert np.std(gaps) == pytest.approx(np.mean(gaps), rel=0.05)
