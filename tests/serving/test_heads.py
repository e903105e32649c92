"""Attacks on the head of a request, against a real server: what they cost it and its health."""

from __future__ import annotations

import resource
import socket
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST = 200
HEAD_MS = 2000
HEALTH_S = 5  # one header of 60 MB held it up for 9.6 s
HELD = 48 << 20  # 300 MB of header lines took 1.1 GB
START = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
LINES = b"A: b\r\n" * 10_000
FLOOD = 300_000_000
LONG = 60_000_000
CROWD = 900


@pytest.fixture
def files() -> Iterator[None]:
    """Lets this process have as many connections as the crowd has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < CROWD + 200:
        pytest.skip(f"this system lets a process open {hard} files")
    if soft != resource.RLIM_INFINITY:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, CROWD + 200), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextmanager
def unharmed(server: Any) -> Iterator[psutil.Process]:
    """Holds the worker to its health and memory as long as the block lasts; yields it."""
    worker = server.family[1]
    over = Event()

    def ask() -> int:
        count = 0
        while not over.is_set() or not count:
            assert httpx.get(f"{server.url}/healthz", timeout=HEALTH_S).status_code == 200
            count += 1
        return count

    before = worker.memory_info().rss
    Path(f"/proc/{worker.pid}/clear_refs").write_text("5")  # the peak is now what it is
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield worker
        finally:
            over.set()
        assert asking.result()
    status = Path(f"/proc/{worker.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    assert (int(line.split()[1]) << 10) - before < HELD


def connect(server: Any) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=30)


def flood(server: Any, start: bytes, part: bytes, size: int) -> bytes:
    """Sends ``start`` and then ``part`` up to ``size`` bytes; returns what is answered."""
    with connect(server) as client:
        with suppress(ConnectionError):  # it listens no more; what it said came before
            client.sendall(start)
            for _ in range(size // len(part)):
                client.sendall(part)
        return received(client)


def received(client: socket.socket) -> bytes:
    """Returns what came, or nothing if the connection was reset."""
    try:
        return client.recv(1000)
    except ConnectionError:
        return b""


def test_heads_that_mean_harm(
    artifact_path: Path,
    serve: Callable[..., Any],
    environment: dict[str, str],
    files: None,
) -> None:
    settings = {"ARTIFACT": artifact_path, "MAX_CONNECTIONS": MOST, "HEAD_MS": HEAD_MS}
    own = {f"POCKETNETS_{name}": str(value) for name, value in settings.items()}
    with serve("-m", "serving", cwd=ROOT, environment={**environment, **own}) as server:
        with unharmed(server):
            answer = flood(server, START, LINES, FLOOD)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")
        with unharmed(server):
            answer = flood(server, START + b"A: ", b"b" * 60_000, LONG)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 431 ")
        with unharmed(server) as worker, ExitStack() as clients:
            crowd = [clients.enter_context(connect(server)) for _ in range(CROWD)]
            for client in crowd:
                with suppress(ConnectionError):  # closed in favour of a later one
                    client.sendall(START + b"A: " + b"b" * 30_000)
            states = [connection.status for connection in worker.net_connections()]
            assert states.count("ESTABLISHED") <= MOST + 10  # some are being closed
            answers = [received(client) for client in crowd]
        late = [answer for answer in answers if answer]
        assert all(answer.startswith(b"HTTP/1.1 408 ") for answer in late)
        assert 0 < len(late) <= MOST
