"""Connections of HTTP/2: what clients may send, and how connections end."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from bare_http2 import (
    DATA,
    GOAWAY,
    HEADERS,
    HEADERS_END,
    RST_STREAM,
    SETTINGS,
    Bare,
    connected,
    frame,
    head,
)
from grpc_client import SECONDS
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, StreamEnded
from h2.exceptions import StreamClosedError
from hpack import HeaderTuple

from serving.grpc_messages import SERVICE
from serving.http2 import Connection, Shared
from serving.shares import Common
from serving.streams import Stream

ROOT = Path(__file__).resolve().parents[2]
HEAD = [HeaderTuple(b":status", b"200")]
TAIL = [HeaderTuple(b"grpc-status", b"0")]
CALL = head("/x")
ASKED = [(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "x")]
LEAVE, BREAK_OFF = (frame(GOAWAY, struct.pack(">II", 0, code)) for code in (0, 2))

Answer = Callable[[Stream], Awaitable[bytes]]


@asynccontextmanager
async def answering(port: int, answer: Answer) -> AsyncGenerator[None, None]:
    """A context manager: a server that answers each request with the bytes of ``answer``."""
    tasks = set()

    async def reply(stream: Stream) -> None:
        stream.answer(HEAD, await answer(stream), TAIL)

    def begin(stream: Stream, has_room: bool) -> None:
        tasks.add(asyncio.ensure_future(reply(stream)))

    many = Common(most=1 << 30, share=1 << 30)
    shared = Shared(begin, most=8, calls=many, untaken=many, head_s=60, age_s=60, grace_s=60)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(shared), "127.0.0.1", port)
    try:
        yield
    finally:
        server.close()
        for connection in list(shared.connections):
            connection.abort()
        for task in tasks:
            task.cancel()
        for ended in await asyncio.gather(*tasks, return_exceptions=True):
            assert ended is None or isinstance(ended, asyncio.CancelledError), ended


def talk(port: int, answer: Answer, say: Callable[[], Awaitable[None]]) -> None:
    """Runs ``say`` while a server answers."""

    async def main() -> None:
        async with answering(port, answer):
            await asyncio.wait_for(say(), SECONDS)

    asyncio.run(main())


class Whole:
    """A client that keeps the rules: it sends what it may, and takes what comes at once."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.state = H2Connection(H2Configuration(client_side=True))
        self.state.initiate_connection()

    def call(self, *, ends: bool) -> int:
        stream = self.state.get_next_available_stream_id()
        self.state.send_headers(stream, ASKED, end_stream=ends)
        return stream

    def room(self, stream: int) -> int:
        return min(self.state.local_flow_control_window(stream), 1 << 14)

    async def events(self) -> list[Event]:
        """Sends what there is, and returns what comes next."""
        self._writer.write(self.state.data_to_send())
        data = await self._reader.read(1 << 16)
        assert data, "the server closed the connection"
        events = self.state.receive_data(data)
        for event in events:
            if isinstance(event, DataReceived):
                size = event.flow_controlled_length
                self.state.increment_flow_control_window(size)
                with suppress(StreamClosedError):
                    self.state.increment_flow_control_window(size, event.stream_id)
        return events


@asynccontextmanager
async def client_of(port: int) -> AsyncGenerator[Whole, None]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        client = Whole(reader, writer)
        await client.events()  # the settings
        yield client
    finally:
        writer.close()


@pytest.mark.parametrize("count", [17, 100])
def test_requests_whose_bodies_come_by_turns_do_not_wait_for_each_other(
    port: int, count: int
) -> None:
    size = 100_000

    async def answer(stream: Stream) -> bytes:
        return b"%d" % len(await stream.read(size))

    async def say() -> None:
        async with client_of(port) as client:
            left = {client.call(ends=False): size for _ in range(count)}  # bytes
            waiting, answers = set(left), []
            while waiting:
                while sent := [stream for stream in left if client.room(stream)]:
                    for stream in sent:
                        part = min(client.room(stream), left[stream], 4096)
                        left[stream] -= part
                        client.state.send_data(stream, bytes(part), end_stream=not left[stream])
                    left = {stream: rest for stream, rest in left.items() if rest}
                for event in await client.events():
                    if isinstance(event, DataReceived):
                        answers.append(event.data)
                    if isinstance(event, StreamEnded):
                        waiting.discard(event.stream_id)
            assert answers == [b"%d" % size] * count

    talk(port, answer, say)


def test_windows_that_answers_need_are_no_flood(port: int) -> None:
    async def answer(stream: Stream) -> bytes:
        return bytes(1 << 20)

    async def say() -> None:
        async with client_of(port) as client:
            for _ in range(50):
                client.call(ends=True)
                size, has_ended = 0, False
                while not has_ended:
                    for event in await client.events():
                        size += len(event.data) if isinstance(event, DataReceived) else 0
                        has_ended |= isinstance(event, StreamEnded)
                assert size == 1 << 20

    talk(port, answer, say)


def test_calls_that_are_reset_without_end_are_a_flood(port: int) -> None:
    async def answer(stream: Stream) -> bytes:
        await stream.gone.wait()
        return b""

    async def say() -> None:
        async with connected(port) as bare:
            for number in range(1, 8001, 2):
                bare.writer.write(frame(HEADERS, CALL, number, HEADERS_END))
                bare.writer.write(frame(RST_STREAM, struct.pack(">I", 8), number))
            assert await bare.why_ended() == 11  # ENHANCE_YOUR_CALM

    talk(port, answer, say)


async def upload(bare: Bare, stream: int, size: int) -> None:
    """Sends so many bytes of a body, whether the server allows for more or not."""
    for start in range(0, size, 1 << 14):
        bare.writer.write(frame(DATA, bytes(min(size - start, 1 << 14)), stream))
    await bare.writer.drain()


def test_what_comes_after_an_answer_takes_nothing_from_other_requests(port: int) -> None:
    async def answer(stream: Stream) -> bytes:
        return b"read no byte"

    async def say() -> None:
        async with connected(port, window=0) as bare:
            await bare.wait_for(SETTINGS)
            for _ in range(20):  # 5 MiB, of which the connection has one
                stream = bare.send(CALL, None)
                await bare.wait_for(HEADERS, stream)
                await upload(bare, stream, 1 << 18)
            late = bare.send(CALL, b"")
            bare.widen(late, 100)
            assert (await bare.answer(late))["grpc-status"] == "0"

    talk(port, answer, say)


def test_a_client_that_leaves_gets_the_answers_to_what_it_began(port: int) -> None:
    async def answer(stream: Stream) -> bytes:
        return b"%d" % len(await stream.read(5000))

    async def say() -> None:
        async with connected(port) as bare:
            stream = bare.send(CALL, None)
            await upload(bare, stream, 2000)
            bare.writer.write(LEAVE)
            await upload(bare, stream, 3000)
            assert (await bare.answer(stream))["grpc-status"] == "0"
            await bare.wait_closed()
        async with connected(port) as bare:
            slow = bare.send(CALL, None)
            bare.writer.write(LEAVE * 3)
            late = bare.send(CALL, b"")
            with pytest.raises(AssertionError, match="was reset: 7"):  # REFUSED_STREAM
                await bare.answer(late)
            await upload(bare, slow, 5000)
            assert (await bare.answer(slow))["grpc-status"] == "0"
            await bare.wait_closed()

    talk(port, answer, say)


@pytest.mark.parametrize("end", [LEAVE, BREAK_OFF], ids=["leaves", "breaks off"])
def test_nothing_is_written_after_the_end(
    port: int, end: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def answer(stream: Stream) -> bytes:
        await stream.gone.wait()
        return b""

    async def say() -> None:
        async with connected(port) as bare:
            for _ in range(3):  # so many unread bytes that the server would let more come
                await upload(bare, bare.send(CALL, None), 1 << 18)
            bare.writer.write(end)
            if end == LEAVE:
                for number in (1, 3, 5):
                    bare.writer.write(frame(RST_STREAM, struct.pack(">I", 8), number))
            await bare.wait_closed()
            await asyncio.sleep(1)

    talk(port, answer, say)
    assert caplog.text == ""


def test_calls_that_take_no_answer_make_a_worker_keep_no_bodies(
    artifact_path: Path, serve: Callable[..., Any], environment: dict[str, str], port: int
) -> None:
    environment |= {"POCKETNETS_ARTIFACT": str(artifact_path)}

    async def call(worker: Any) -> int:
        before = worker.memory_info().rss
        async with AsyncExitStack() as clients:
            for _ in range(250):  # with 240 MiB in all
                bare = await clients.enter_async_context(connected(port, window=0))
                for _ in range(4):
                    await upload(bare, bare.send(head(f"/{SERVICE}/ServerLive"), None), 15 << 14)
                await asyncio.wait_for(bare.wait_for(HEADERS, 7), SECONDS)
            return int(worker.memory_info().rss - before)

    with serve(
        "-m", "serving", "--grpc-port", str(port), cwd=ROOT, environment=environment
    ) as server:
        _, worker = server.family
        assert asyncio.run(call(worker)) < 64 << 20
