"""Connections of gRPC that hold something up: they end, and take nothing from others."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
from bare_http2 import HEADERS, PING, SETTINGS, connected, frame
from grpc_client import SECONDS, Client

from serving import grpc_calls, grpc_server
from serving.grpc_messages import SERVICE

LIVE = f"/{SERVICE}/ServerLive"
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


def test_more_calls_than_places_are_refused(
    talk: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def say(client: Client) -> None:
        monkeypatch.setattr(grpc_calls.Calls, "_is_full", True)
        code, detail = await client.refused("ServerLive")
        assert (code, f"all {MOST} places" in detail) == ("RESOURCE_EXHAUSTED", True)
        assert client.told["retry-after"] == "1"

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


def test_more_connections_than_allowed_are_closed(talk: Callable[..., None], port: int) -> None:
    async def say(client: Client) -> None:
        async with AsyncExitStack() as clients:
            for _ in range(MOST):
                bare = await clients.enter_async_context(connected(port))
                await asyncio.wait_for(bare.wait_for(SETTINGS), SECONDS)
            async with connected(port) as refused:
                with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
                    await asyncio.wait_for(refused.next(), SECONDS)
            assert (await asyncio.wait_for(bare.answer(bare.call(LIVE)), SECONDS))[":status"]
        assert (await client.ask("ServerLive")).live

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


def test_a_connection_that_takes_no_answer_is_closed(
    talk: Callable[..., None], port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(grpc_server, "_AGE_S", 0.5)

    async def say(client: Client) -> None:
        async with connected(port, window=0) as bare:
            bare.call(LIVE)
            await asyncio.wait_for(bare.wait_closed(), SECONDS)
        assert (await client.ask("ServerLive")).live

    talk(say, head_ms=100, deadline_ms=100)
