from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import re
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tiny_artifact import colour_means, tiny_artifact

from artifact.artifact import Artifact, write_artifact
from artifact.records import Metrics
from bench.latency.record import Row, Sweep
from bench.load.http_client import Address
from bench.measure.timing import Latency, Plan
from core.conditions import Conditions
from core.files import staged
from core.machine import Machine

SIDE = 32
PLAN = Plan(count=35, seconds=0, rounds=7)  # what the rows of make_row hold


@pytest.fixture
def make_artifact(tmp_path: Path) -> Callable[..., Artifact]:
    """Makes artifacts under ``tmp_path / "artifacts"``; keywords replace fields."""

    def make(network: str = "tiny-toy", name: str = "onnx-fp32", **changes: Any) -> Artifact:
        model, _, data = network.rpartition("-")
        form, _, precision = name.rpartition("-")
        path = tmp_path / "artifacts" / network / name
        pixels = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
        logits = pixels.mean(axis=(1, 2)).astype(np.float32)
        with staged(path) as folder:
            artifact = tiny_artifact(
                folder,
                SIDE,
                model=model,
                data=data,
                precision=precision,
                format=form,
                batch_range=(1, 8),
                macs=3072,
                metrics=Metrics(top1=0.75, torch_top1=0.75, images=20, runtime="ort-cpu"),
            )
            artifact = dataclasses.replace(artifact, **changes)
            onnx.save(colour_means(SIDE), str(artifact.model_file))
            write_artifact(artifact, pixels, logits)
        return Artifact.load(path)

    return make


MACHINE = Machine(
    cpu="a processor",
    cores=2,
    memory=None,
    os="a system",
    kernel="1.0",
    governor=None,
    gpu=None,
    driver=None,
    versions={"python": "3.11"},
)
BEFORE = Conditions(
    when="2026-11-22T00:00:00+00:00", load_average=(0.1, 0.2, 0.3), cpu_mhz=2000.0, gpu_mhz=None
)
AFTER = dataclasses.replace(BEFORE, when="2026-11-22T00:10:00+00:00", load_average=(1.0, 0.5, 0.3))


@pytest.fixture(scope="session")
def make_row() -> Callable[..., Row]:
    """Makes rows; ``ms`` is the duration of every sample, ``spread`` how far turns differ."""

    def make(ms: float | None = 1.0, spread: float = 0.0, **changes: Any) -> Row:
        latency = None
        if ms is not None:
            factors = np.linspace(1 - spread, 1 + spread, 7)
            turns = tuple((ms / 1e3 * float(f),) * 5 for f in factors)
            latency = Latency(turns=turns, warmup=10)
        fields: dict[str, Any] = {
            "model": "tiny",
            "data": "toy",
            "folder": f"tiny-toy/onnx-{changes.get('precision', 'fp32')}",
            "format": "onnx",
            "precision": "fp32",
            "runtime": "ort-cpu",
            "batch": 1,
            "threads": 1,
            "latency": latency,
            "weights": "trained",
            "macs": 17_800_000,
            "parameters": 4_200_000,
            "size": 21_900_000,
            "sha256": "0" * 64,
            "metrics": Metrics(top1=0.983, torch_top1=0.983, images=359, runtime="ort-cpu"),
            "machine": MACHINE.key,
            "when": "2026-11-22T00:00:00+00:00",
        }
        return Row(**{**fields, **changes})

    return make


@pytest.fixture(scope="session")
def make_sweep() -> Callable[..., Sweep]:
    """Makes a sweep of rows, on a made-up machine."""

    def make(*rows: Row) -> Sweep:
        return Sweep(machine=MACHINE, plan=PLAN, rows=rows, before=BEFORE, after=AFTER)

    return make


# Takes a request's head and body and returns all bytes of the answer; None hangs up.
Handler = Callable[[bytes, bytes], Awaitable[bytes | None]]


@pytest.fixture
def serve() -> Iterator[Callable[[Handler], Address]]:
    """Starts HTTP servers in threads of their own; they end with the test."""
    with ExitStack() as stack:
        yield lambda handler: stack.enter_context(_served(handler))


@contextmanager
def _served(handler: Handler) -> Iterator[Address]:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head.lower())
                body = await reader.readexactly(int(length[1]) if length else 0)
                if (reply := await handler(head, body)) is None:
                    return
                writer.write(reply)
                await writer.drain()
                if b"connection: close" in reply:
                    return
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has left
        finally:
            writer.close()

    async def main() -> None:
        stop = asyncio.Event()
        async with await asyncio.start_server(talk, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            started.set_result((asyncio.get_running_loop(), stop, port))
            await stop.wait()
        # What is being accepted ends by itself, what answers for ever does not.
        while tasks := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(tasks, timeout=0.2)
            for task in tasks:
                task.cancel()

    started: concurrent.futures.Future[Any] = concurrent.futures.Future()
    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    loop, stop, port = started.result(10)
    try:
        yield Address("127.0.0.1", port, "/predict")
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()


@pytest.fixture(scope="session")
def reply() -> Callable[..., bytes]:
    """Makes the bytes of an answer; ``lines`` are more header lines."""

    def make(status: int = 200, body: bytes = b"{}", *lines: str) -> bytes:
        head = [f"HTTP/1.1 {status} Said", *lines, f"Content-Length: {len(body)}", "", ""]
        return "\r\n".join(head).encode() + body

    return make
