"""Connections of gRPC that hold something up: they end, and take nothing from others."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import unquote

import pytest
from bare_http2 import (
    DATA,
    END,
    HEADERS,
    HEADERS_END,
    PING,
    PREFACE,
    SETTINGS,
    Bare,
    connected,
    frame,
    head,
    packed,
)
from grpc_client import SECONDS, Client

from serving import grpc_server, http2
from serving.grpc_messages import SERVICE, message_classes

LIVE = f"/{SERVICE}/ServerLive"
HEALTH = "/grpc.health.v1.Health/Check"
METADATA = f"/{SERVICE}/ModelMetadata"
NAMED = message_classes()["ModelMetadataRequest"](name="channels-colours").SerializeToString()
SECRET = f"/{SERVICE}/ServerMetadata"
MOST = 8  # connections, and calls


def test_calls_whose_answer_is_not_taken_hold_no_places(
    talk: Callable[..., None], port: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def say(client: Client) -> None:
        async with AsyncExitStack() as clients:
            for _ in range(2):
                bare = await clients.enter_async_context(connected(port, window=0))
                for _ in range(MOST):
                    bare.call(LIVE)
                # It is answered in the order of calls, and needs no room: the others were, too.
                refused = bare.call(SECRET)
                await asyncio.wait_for(bare.wait_for(HEADERS, refused), SECONDS)
            for _ in range(3):
                assert (await client.ask("ServerLive")).live

    talk(say, max_connections=MOST, token="s3cret")
    assert caplog.text == ""  # nor do clients that leave without their answers


@pytest.mark.parametrize("message", [None, b""])
def test_open_calls_of_a_few_connections_hold_up_nobody_else(
    talk: Callable[..., None], port: int, message: bytes | None
) -> None:
    async def say(client: Client) -> None:
        async with connected(port, window=0) as bare:
            for _ in range(98):  # without a message, or with an answer that is not taken
                last = bare.send(head(HEALTH), None if message is None else packed(message, 0))
            answer = await asyncio.wait_for(bare.answer(last), SECONDS)
            assert answer["grpc-status"] == "8"
            assert "several of them yours" in answer["grpc-message"]
            assert answer["retry-after"] == "1"
            assert await client.send("Check", b"", "grpc.health.v1.Health") == b"\x08\x01"

    talk(say, max_connections=MOST)


def test_answers_that_are_not_taken_hold_no_more_memory(
    talk: Callable[..., None], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_server, "_UNTAKEN", 4000)

    async def say(client: Client) -> None:
        size = len(await client.send("ModelMetadata", NAMED))
        async with connected(port, window=0) as bare:
            calls = [bare.call(METADATA, NAMED) for _ in range(4000 // size + 2)]
            refused = await asyncio.wait_for(bare.answer(calls[-1]), SECONDS)
            assert (refused["grpc-status"], refused["retry-after"]) == ("8", "1")
            assert "not taken hold too much memory" in unquote(refused["grpc-message"])
            assert (await client.ask("ServerLive")).live  # of the share of others
            for call in calls[:-1]:
                bare.widen(call, 1000)
                assert (await asyncio.wait_for(bare.answer(call), SECONDS))["grpc-status"] == "0"
            assert await client.send("ModelMetadata", NAMED)
            again = bare.call(METADATA, NAMED)
            bare.widen(again, 1000)
            assert (await asyncio.wait_for(bare.answer(again), SECONDS))["grpc-status"] == "0"

    talk(say, max_connections=MOST)


def test_a_connection_without_a_call_is_closed(talk: Callable[..., None], port: int) -> None:
    async def say(client: Client) -> None:
        async with connected(port) as bare, connected(port) as busy:

            async def ping() -> None:
                while True:
                    busy.writer.write(frame(PING, bytes(8)))
                    await asyncio.sleep(0.02)

            pinging = asyncio.ensure_future(ping())
            for each in (bare, busy):
                await asyncio.wait_for(each.wait_closed(), SECONDS)
            pinging.cancel()

    talk(say, head_ms=500)


def test_connections_without_a_call_make_way_for_others(
    talk: Callable[..., None], port: int
) -> None:
    async def say(client: Client) -> None:
        async with AsyncExitStack() as clients:
            idle = [await clients.enter_async_context(connected(port)) for _ in range(MOST)]
            for bare in idle:
                await asyncio.wait_for(bare.wait_for(SETTINGS), SECONDS)
            await asyncio.wait_for(idle[0].answer(idle[0].call(LIVE)), SECONDS)
            assert (await client.ask("ServerLive")).live
            assert await asyncio.wait_for(idle[1].why_ended(), SECONDS) == 0
            for bare in (idle[0], *idle[2:]):  # those that were closed later, or had a call
                assert await asyncio.wait_for(bare.answer(bare.call(LIVE)), SECONDS)

    talk(say, max_connections=MOST)


def test_connections_that_wait_for_their_client_make_way_for_others(
    talk: Callable[..., None], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def say(client: Client) -> None:
        async with AsyncExitStack() as clients:
            for number in range(MOST):
                bare = await clients.enter_async_context(connected(port, window=0))
                bare.send(head(HEALTH), None if number % 2 else packed(b"", 0))
                bare.writer.write(frame(PING, bytes(8)))
                await asyncio.wait_for(bare.wait_for(PING), SECONDS)
            async with connected(port) as other:
                assert await asyncio.wait_for(other.answer(other.call(LIVE)), SECONDS)
            bare = await clients.enter_async_context(connected(port))
            bare.send(head(HEALTH), None)
            bare.writer.write(frame(PING, bytes(8)))
            await asyncio.wait_for(bare.wait_for(PING), SECONDS)
            monkeypatch.setattr(http2.Connection, "waits", False)
            async with connected(port) as refused:
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    await asyncio.wait_for(refused.next(), SECONDS)

    talk(say, max_connections=MOST)


@pytest.mark.parametrize("many", [60, 6])
def test_settings_that_nobody_knows_end_a_connection(
    talk: Callable[..., None], port: int, many: int
) -> None:
    async def say(client: Client) -> None:
        async with connected(port) as bare:
            for start in range(100, 160, many):
                kinds = range(start, start + many)
                unknown = b"".join(struct.pack(">HI", kind, 1) for kind in kinds)
                bare.writer.write(frame(SETTINGS, unknown))
            assert await asyncio.wait_for(bare.why_ended(), SECONDS) == 11  # ENHANCE_YOUR_CALM

    talk(say)


def test_connections_that_were_not_taken_yet_are_answered_at_the_end(
    talk: Callable[..., None], port: int
) -> None:
    async def ended(sockets: list[socket.socket]) -> None:
        for each in sockets:
            bare = Bare(*await asyncio.open_connection(sock=each))
            assert (await asyncio.wait_for(bare.answer(1), SECONDS))["grpc-status"] == "0"
            bare.writer.close()

    async def say(client: Client) -> Any:
        sockets = [socket.create_connection(("127.0.0.1", port)) for _ in range(3)]
        for each in sockets:  # the server has no time to take them before it ends
            call = frame(HEADERS, head(LIVE), 1, HEADERS_END) + frame(DATA, packed(b"", 0), 1, END)
            each.sendall(PREFACE + frame(SETTINGS) + call)
        return ended(sockets)

    talk(say)


def test_a_connection_that_takes_no_answer_is_closed(talk: Callable[..., None], port: int) -> None:
    async def say(client: Client) -> None:
        async with connected(port, window=0) as bare, connected(port, window=0) as slow:
            taken = slow.call(LIVE)
            bare.call(LIVE)
            closed = asyncio.ensure_future(bare.wait_closed())
            for _ in range(6):  # a byte at a time
                await asyncio.sleep(0.25)
                slow.widen(taken, 1)
            await asyncio.wait_for(closed, SECONDS)
            slow.widen(taken, 100)
            assert await asyncio.wait_for(slow.answer(taken), SECONDS)

    talk(say, head_ms=800)


def test_a_connection_that_takes_too_long_is_closed(
    talk: Callable[..., None], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_server, "_AGE_S", 0.1)

    async def say(client: Client) -> None:
        async with connected(port) as bare:
            bare.send(head(HEALTH), None)
            await asyncio.wait_for(bare.wait_closed(), SECONDS)

    talk(say, head_ms=100, deadline_ms=100)
