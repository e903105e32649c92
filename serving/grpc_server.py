"""Serves gRPC on a port of its own, by an ASGI application that gets each call as a request.

In HTTP/2, too, a call is a POST to the path of its method. What comes back as a status of HTTP is
sent as a code of gRPC.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.types import ASGIApp
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from serving.ending import told_of_the_end
from serving.grpc_calls import Calls
from serving.grpc_routes import most_bytes
from serving.http2 import Connection, Shared
from serving.ports import BACKLOG, listen_grpc
from serving.routes import Route
from serving.settings import GRACE_S, Settings
from serving.shares import Common

_UNTAKEN = 64 << 20  # bytes of answers that are not taken
_CALLS = 8  # that each connection may have open in any case, and all may have on average
_AGE_S = 60  # of a connection: then it gets no more calls, which clients do not notice
_LOOK_S = 0.02  # between looks whether all connections are closed


@asynccontextmanager
async def grpc_server(
    app: ASGIApp, routes: list[Route], settings: Settings
) -> AsyncGenerator[None, None]:
    """A context manager: ``app`` answers ``routes`` by gRPC inside the block.

    Workers listen on the same port (``SO_REUSEPORT``): the system gives each connection to one. At
    the end calls that have begun are answered, for as long as requests of HTTP, and while those
    are: it begins with the block's end, or before, with that of :mod:`serving.ending`.
    """
    called: Any = app
    if settings.trusted_proxies:
        called = ProxyHeadersMiddleware(called, list(settings.trusted_proxies))
    calls = Calls(
        called,
        [route.path for route in routes],
        most_bytes(settings),
        (settings.host, settings.grpc_port),
    )
    shared = Shared(
        begin=calls.begin,
        most=settings.max_connections,
        calls=Common(most=_CALLS * settings.max_connections, share=_CALLS),
        untaken=Common(most=_UNTAKEN, share=_UNTAKEN // settings.max_connections),
        head_s=settings.head_ms / 1e3,
        age_s=_AGE_S,
        # For calls that have begun: their upload, and their answer.
        grace_s=(2 * settings.deadline_ms + settings.head_ms) / 1e3,
    )
    loop = asyncio.get_running_loop()
    listening = listen_grpc(settings)
    server = await loop.create_server(lambda: Connection(shared), sock=listening, backlog=BACKLOG)
    ending = asyncio.Event()
    stopped = asyncio.create_task(_stop(server, listening, shared, ending))
    with told_of_the_end(ending.set):
        try:
            yield
        finally:
            ending.set()
            await stopped
            await calls.ended()


async def _take_waiting(listening: socket.socket, shared: Shared) -> None:
    """Takes the connections that wait to be: they would be reset when the socket is closed."""
    loop = asyncio.get_running_loop()
    with suppress(BlockingIOError):  # there is none any more
        for _ in range(BACKLOG):
            taken, _address = listening.accept()
            await loop.connect_accepted_socket(lambda: Connection(shared), taken)


async def _stop(
    server: asyncio.Server, listening: socket.socket, shared: Shared, ending: asyncio.Event
) -> None:
    """Stops ``server`` once it is ``ending``, and returns when all connections are closed."""
    await ending.wait()
    await _take_waiting(listening, shared)
    server.close()
    shared.is_ending = True
    for connection in list(shared.connections):
        connection.leave()
    end = asyncio.get_running_loop().time() + GRACE_S
    await asyncio.sleep(_LOOK_S)  # the event loop may have taken some that it has not made yet
    while shared.connections and asyncio.get_running_loop().time() < end:
        await asyncio.sleep(_LOOK_S)
    for connection in list(shared.connections):
        connection.abort()
