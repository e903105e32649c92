from __future__ import annotations

import asyncio
import socket

import pytest

from bench.load import Load, check_loopback, send_load
from models.errors import UserError

IMAGES = [b"an image", b"another", b"bad"]


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Serves HTTP/1.1 until the client leaves: 200, or 400 for the body ``bad``."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:-2])
            body = await reader.readexactly(int(fields[b"content-length"]))
            status = b"400 Bad Request" if body == b"bad" else b"200 OK"
            writer.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 2\r\n\r\n{}")
            await writer.drain()
    except asyncio.IncompleteReadError:  # the client has left
        writer.close()
        await writer.wait_closed()


def load_server(images: list[bytes], **limits: float) -> Load:
    async def main() -> Load:
        open_connections: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            open_connections.add(asyncio.create_task(answer(reader, writer)))

        async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            url = f"http://127.0.0.1:{port}/predict"
            load = await send_load(url, images, connections=3, **limits)  # type: ignore[arg-type]
            await asyncio.gather(*open_connections)
        return load

    return asyncio.run(main())


def test_statuses_and_latencies_are_counted() -> None:
    load = load_server(IMAGES, count=30, seconds=60)
    assert load.statuses == {"200": 20, "400": 10}
    assert load.latency is not None
    assert load.latency.count == 20
    assert load.throughput == pytest.approx(20 / load.seconds)


def test_no_good_answer_is_no_latency() -> None:
    load = load_server([b"bad"], count=5, seconds=60)
    assert load.statuses == {"400": 5}
    assert load.latency is None
    assert load.throughput == 0


def test_nobody_listening_is_one_clear_line() -> None:
    with socket.socket() as held:  # bound, not listening: nobody else can take the port
        held.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{held.getsockname()[1]}/predict"
        with pytest.raises(UserError, match="nobody listens there"):
            asyncio.run(send_load(url, IMAGES, connections=2, count=10, seconds=5))


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:3000/predict", "http://localhost/", "http://[::1]:1/"]
)
def test_this_machine_is_allowed(url: str) -> None:
    assert check_loopback(url) is None  # type: ignore[func-returns-value]


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/predict",
        "http://10.0.0.1/",
        "https://127.0.0.1/",
        "nothing",
        "http://[/",
    ],
)
def test_other_machines_are_refused(url: str) -> None:
    with pytest.raises(UserError, match="load is sent only to"):
        asyncio.run(send_load(url, IMAGES, connections=1, count=1, seconds=1))
