"""What a call of gRPC looks like in HTTP/2: deadlines, codings, sizes, and what is none."""

from __future__ import annotations

import asyncio
import gzip
import struct
import zlib
from collections.abc import Callable
from random import Random
from urllib.parse import unquote

import grpc
import pytest
from bare_http2 import (
    DATA,
    END,
    GOAWAY,
    HEADERS,
    HEADERS_END,
    PING,
    Bare,
    connected,
    frame,
    head,
    literal,
    packed,
)
from grpc_client import SECONDS, Client

from serving import grpc_server
from serving.frames import MOST_HEADERS
from serving.grpc_calls import Code
from serving.grpc_messages import SERVICE, message_classes

LIVE = f"/{SERVICE}/ServerLive"
READY = f"/{SERVICE}/ModelReady"
INFER = f"/{SERVICE}/ModelInfer"
ASKED = message_classes()["ModelReadyRequest"](name="channels-colours").SerializeToString()
# Without the time, which would be in the names of tests.
GZIPPED, BOMB = (gzip.compress(data, mtime=0) for data in (ASKED, bytes(10_000_000)))


async def answered(bare: Bare, stream: int) -> tuple[int, str]:
    """Returns code and detail of an answer."""
    found = await asyncio.wait_for(bare.answer(stream), SECONDS)
    return int(found["grpc-status"]), unquote(found.get("grpc-message", ""))


def test_codes_are_those_of_grpc() -> None:
    for code in Code:
        assert grpc.StatusCode[code.name].value[0] == code


@pytest.mark.parametrize(
    ("coding", "data", "code", "detail"),
    [
        ("gzip", packed(GZIPPED), 0, ""),
        ("deflate", packed(zlib.compress(ASKED)), 0, ""),
        ("gzip", packed(ASKED, 0), 0, ""),
        ("gzip", packed(ASKED, 0) * 2, 0, ""),
        ("gzip", packed(GZIPPED[:-1]), 3, "does not end where it should"),
        ("gzip", packed(GZIPPED + b"x"), 3, "does not end where it should"),
        ("gzip", packed(b"x" * 30), 3, "not compressed right"),
        ("gzip", packed(b""), 3, "does not end where it should"),
        ("gzip", packed(BOMB), 3, "more than 20 times its compressed"),
        ("gzip", packed(bytes(10_000_000))[:1000], 8, "larger than max"),
        ("identity", packed(ASKED), 3, "grpc-encoding says no"),
        ("br", packed(ASKED), 12, "can be identity, gzip or deflate"),
        ("identity", packed(ASKED, 0)[:-1], 3, f"ended before the {5 + len(ASKED)} bytes"),
        ("identity", b"\0\0", 3, "ended before the 5 bytes of its message"),
        ("gzip", packed(ASKED, 2), 3, "length is 2: it can be 0, or 1"),
    ],
)
def test_messages_are_inflated_within_limits(
    talk: Callable[..., None], port: int, coding: str, data: bytes, code: int, detail: str
) -> None:
    path = INFER if len(data) > 9000 else READY

    async def say(client: Client) -> None:
        async with connected(port) as bare:
            stream = bare.send(head(path, grpc_encoding=coding), data)
            found, told = await answered(bare, stream)
        assert (found, detail in told) == (code, True), told

    talk(say, max_bytes=1_000_000)


def test_a_message_that_inflates_to_too_much_is_refused(
    talk: Callable[..., None], port: int
) -> None:
    async def say(client: Client) -> None:
        async with connected(port) as bare:
            data = packed(gzip.compress(bytes(1_000_000)))
            code, told = await answered(bare, bare.send(head(INFER, grpc_encoding="gzip"), data))
        assert (code, "larger than max" in told) == (8, True), told

    talk(say, max_bytes=100_000)


def test_a_deadline_holds_for_the_upload(talk: Callable[..., None], port: int) -> None:
    async def say(client: Client) -> None:
        async with connected(port) as bare:
            for timeout in ("50m", "50000u"):
                stream = bare.send(head(INFER, grpc_timeout=timeout), None)
                assert await answered(bare, stream) == (4, "the deadline of the call has passed")
            assert (await answered(bare, bare.call(LIVE, grpc_timeout="99999999H")))[0] == 0
            for timeout in ("1", "S", "1s", "-1S", "1.5S", "123456789S"):
                code, told = await answered(bare, bare.call(LIVE, grpc_timeout=timeout))
                assert (code, "grpc-timeout is no number" in told) == (3, True)

    talk(say)


def test_what_is_no_call_is_refused(talk: Callable[..., None], port: int) -> None:
    async def say(client: Client) -> None:
        async with connected(port) as bare:
            for block in (
                head(LIVE).replace(b"application/grpc", b"application/json"),
                head(LIVE).replace(b"\x10application/grpc", b"\x1aapplication/grpc-web+proto"),
                head(LIVE).replace(b"\x04POST", b"\x03PUT"),
                literal(":method", "CONNECT") + literal(":authority", "x"),
            ):
                answer = await asyncio.wait_for(bare.answer(bare.send(block, b"")), SECONDS)
                assert answer == {":status": "415"}
            assert await answered(bare, bare.call("/x")) == (12, "no method /x")
            code, _ = await answered(bare, bare.call("/predict"))  # a route of HTTP
            assert code == 12
            many = {f"k{number}": "" for number in range(100)}
            code, told = await answered(bare, bare.call(LIVE, **many))
            assert (code, "100 lines" in told) == (8, True)
            code, told = await answered(bare, bare.call(LIVE, x="v" * (MOST_HEADERS - 300)))
            assert (code, f"{MOST_HEADERS} bytes" in told) == (8, True)
            kept = literal("x", "v" * 4000, 64)  # by the table, as entry 62
            bare.send(head(LIVE) + kept + bytes([0x80 | 62]) * 8, b"")
            await asyncio.wait_for(bare.wait_closed(), SECONDS)

    talk(say)


def test_a_token_is_asked_for_before_the_message(talk: Callable[..., None], port: int) -> None:
    async def say(client: Client) -> None:
        async with connected(port) as bare:
            code, _ = await answered(bare, bare.send(head(INFER), None))
        assert code == 16

    talk(say, token="s3cret")


def test_a_large_message_comes_in_many_frames(talk: Callable[..., None]) -> None:
    async def say(client: Client) -> None:
        image = {"name": "image", "datatype": "BYTES", "shape": [1]}
        field = {"bytes_contents": [Random(0).randbytes(3_000_000)]}
        for compression in (None, grpc.Compression.Gzip):
            body = message_classes()["ModelInferRequest"](
                model_name="channels-colours", inputs=[{**image, "contents": field}]
            ).SerializeToString()
            with pytest.raises(grpc.aio.AioRpcError, match="not a JPEG"):
                await client.send("ModelInfer", body, compression=compression)

    talk(say, max_bytes=4_000_000)


def test_large_messages_at_once_do_not_wait_for_each_other(talk: Callable[..., None]) -> None:
    async def say(client: Client) -> None:
        image = {"name": "image", "datatype": "BYTES", "shape": [1]}
        body = message_classes()["ModelInferRequest"](
            model_name="channels-colours",
            inputs=[{**image, "contents": {"bytes_contents": [bytes(300_000)]}}],
        ).SerializeToString()
        calls = (client.send("ModelInfer", body) for _ in range(30))
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, grpc.aio.AioRpcError)
            assert "not a JPEG" in str(error.details())

    talk(say, max_bytes=1_000_000)


def test_an_answer_comes_as_the_client_takes_it(talk: Callable[..., None], port: int) -> None:
    async def say(client: Client) -> None:
        async with connected(port, window=3) as bare:
            stream = bare.call(READY, ASKED)
            await asyncio.wait_for(bare.wait_for(DATA, stream), SECONDS)
            bare.widen(stream, 100)
            assert (await answered(bare, stream))[0] == 0

    talk(say)


def test_connections_that_end_lose_no_call(
    talk: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_server, "_AGE_S", 0.05)

    async def say(client: Client) -> None:
        async def call() -> None:
            for _ in range(40):
                assert (await client.ask("ModelReady", name="channels-colours")).ready
                await asyncio.sleep(0.02)

        await asyncio.gather(*(call() for _ in range(8)))

    talk(say)


def test_a_call_after_the_last_was_not_begun(
    talk: Callable[..., None], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_server, "_AGE_S", 0.05)

    async def say(client: Client) -> None:
        async with connected(port) as bare:
            slow = bare.send(head(INFER), None)  # it keeps the connection open
            await asyncio.wait_for(bare.wait_for(GOAWAY), SECONDS)
            assert (await answered(bare, bare.call(LIVE)))[0] == 0  # it was on its way
            await asyncio.wait_for(bare.wait_for(GOAWAY), SECONDS)
            late = bare.call(LIVE)
            with pytest.raises(AssertionError, match="was reset: 7"):  # REFUSED_STREAM
                await answered(bare, late)
            bare.writer.write(frame(DATA, packed(b"", 0), slow, END))
            assert (await answered(bare, slow))[0] == 5  # no model of that name
            await asyncio.wait_for(bare.wait_closed(), SECONDS)

    talk(say)


def test_many_small_frames_end_a_connection(talk: Callable[..., None], port: int) -> None:
    async def say(client: Client) -> None:
        async with connected(port) as bare:
            bare.writer.write(frame(PING, bytes(8)) * 2000)
            code = await asyncio.wait_for(bare.why_ended(), SECONDS)
            await asyncio.wait_for(bare.wait_closed(), SECONDS)
        assert code == 11  # ENHANCE_YOUR_CALM
        async with connected(port) as bare:
            for _ in range(300):  # more than of one connection that calls nothing
                bare.writer.write(frame(PING, bytes(8)) * 8)
                assert (await answered(bare, bare.call(LIVE)))[0] == 0

    talk(say)


def test_a_client_may_reset_its_calls(talk: Callable[..., None], port: int) -> None:
    async def say(client: Client) -> None:
        async with connected(port) as bare:
            for number in range(1, 401, 2):
                bare.writer.write(frame(HEADERS, head(INFER), number, HEADERS_END))
                bare.writer.write(frame(3, struct.pack(">I", 8), number))
            bare.skip(200)
            assert (await answered(bare, bare.call(LIVE)))[0] == 0

    talk(say, max_connections=8)
