"""gRPC of a service with several workers: one port, and its end."""

from __future__ import annotations

import asyncio
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import grpc
import pytest
from bare_http2 import GOAWAY, connected, frame
from crowd import wait_until
from refused_start import BENTOML, refused

from core.errors import UserError
from serving import ports, starting, supervisor
from serving.grpc_messages import SERVICE, message_classes
from serving.ports import reserved
from serving.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
ALONE = (("grpc.use_local_subchannel_pool", 1),)  # or channels share a connection, and a worker


@contextmanager
def channel_to(port: int) -> Iterator[Any]:
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=ALONE) as channel:
        yield channel


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def is_ready(channel: Any) -> bool:
    answer = message_classes()["ServerReadyResponse"]
    call = channel.unary_unary(f"/{SERVICE}/ServerReady", response_deserializer=answer.FromString)
    return bool(call(b"", timeout=30, wait_for_ready=True).ready)


def test_workers_share_a_port_that_no_other_service_gets(
    artifact_path: Path,
    serve: Callable[..., Any],
    environment: dict[str, str],
    port: int,
) -> None:
    environment |= {"POCKETNETS_WORKERS": "2", "POCKETNETS_ARTIFACT": str(artifact_path)}
    with serve(
        "-m", "serving", "--grpc-port", str(port), cwd=ROOT, environment=environment
    ) as server:
        for _ in range(8):
            with channel_to(port) as channel:
                assert is_ready(channel)
        again = Settings(artifact=artifact_path, grpc_port=port)
        with pytest.raises(UserError, match=rf"{port} is in use; .*--grpc-port {port + 1}"):
            reserved(again).__enter__()
        told = refused(*BENTOML, environment=environment | {"POCKETNETS_GRPC_PORT": str(port)})
        assert f"port {port} is in use; choose another with --grpc-port {port + 1} or POCK" in told
        assert "\n" not in told
        assert server.stop(signal.SIGTERM) == 0
        log = server.log()
    assert f"gRPC on 127.0.0.1:{port}" in log
    assert "Traceback" not in log


def test_grpc_ends_while_http_still_answers(
    artifact_path: Path,
    serve: Callable[..., Any],
    environment: dict[str, str],
    port: int,
    encoded: Callable[..., bytes],
) -> None:
    image = encoded()
    environment |= {"POCKETNETS_ARTIFACT": str(artifact_path)}
    with serve(
        "-m", "serving", "--grpc-port", str(port), cwd=ROOT, environment=environment
    ) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as upload:
            head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(image)}\r\n\r\n"
            upload.sendall(head.encode() + image[:1])
            assert server.is_ready()  # it has read what came before
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not listens(port))
            upload.sendall(image[1:])
            assert upload.recv(1000).startswith(b"HTTP/1.1 200 ")
        assert server.process.wait(30) == 0


def test_what_clients_send_is_not_in_the_log(
    artifact_path: Path, serve: Callable[..., Any], environment: dict[str, str], port: int
) -> None:
    environment |= {"POCKETNETS_ARTIFACT": str(artifact_path)}
    leave = struct.pack(">II", 0, 2) + b'x\n{"event": "forged"}\n'

    async def send() -> None:
        async with connected(port) as bare:
            bare.writer.write(frame(GOAWAY, leave))
            await asyncio.wait_for(bare.wait_closed(), 60)

    with serve(
        "-m", "serving", "--grpc-port", str(port), cwd=ROOT, environment=environment
    ) as server:
        asyncio.run(send())
        assert server.stop(signal.SIGTERM) == 0
        assert "forged" not in server.log()


def test_without_the_extra_the_start_says_so(
    artifact_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ports, "find_spec", lambda name: None if name == "h2" else object())
    with pytest.raises(UserError, match=r"POCKETNETS_GRPC_PORT is set.*pip install '\.\[grpc\]'"):
        starting.start(Settings(artifact=artifact_path, grpc_port=5001), "")


def test_each_port_may_have_all_connections(
    artifact_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor.multiprocess, "Process", None)  # supervise sets it
    monkeypatch.setattr(supervisor.resource, "getrlimit", lambda _: (1024, 2000))
    settings = Settings(artifact=artifact_path, grpc_port=5001, max_connections=1000)
    with pytest.raises(UserError, match="it can be 900 at most"):
        supervisor.supervise(settings, Mock(), Mock())
