"""Serves gRPC on a port of its own, by an ASGI application that gets each call as a request.

In HTTP/2, too, a call is a POST to the path of its method. What comes back as a status of HTTP is
sent as a code of gRPC. grpcio is imported only where this is used: its threads would not survive
the fork of a worker.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Message, Scope
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from serving.access_log import REQUEST_ID
from serving.ending import told_of_the_end
from serving.errors import BUSY_S
from serving.grpc_routes import most_bytes
from serving.memory import give_back
from serving.protocol import HEAD_BYTES
from serving.routes import Route
from serving.settings import GRACE_S, Settings

_AGE_MS = 60_000  # of a connection: then it gets no more calls, which clients do not notice
_STREAMS = 100  # calls at once of a connection: what clients assume before they are told
_UNTAKEN = 8  # so many times the places for calls may be begun: an answer not taken is 24 KiB
_PENDING = 10_000  # calls that arrived and were not looked at: a further one is answered CANCELLED
_LARGE = 1 << 20  # bytes of a message after which memory is given back
_TIDY_S = 1.0  # later
_HOLD_S, _HOLDS = 0.1, 3  # at the end: time for calls that were sent to begin, and how often
_CODES = {
    HTTPStatus.UNAUTHORIZED: "UNAUTHENTICATED",
    HTTPStatus.FORBIDDEN: "PERMISSION_DENIED",
    HTTPStatus.NOT_FOUND: "NOT_FOUND",
    HTTPStatus.REQUEST_TIMEOUT: "DEADLINE_EXCEEDED",
    HTTPStatus.CONFLICT: "FAILED_PRECONDITION",
    HTTPStatus.TOO_MANY_REQUESTS: "RESOURCE_EXHAUSTED",
    HTTPStatus.INTERNAL_SERVER_ERROR: "INTERNAL",
    HTTPStatus.SERVICE_UNAVAILABLE: "UNAVAILABLE",
    HTTPStatus.GATEWAY_TIMEOUT: "DEADLINE_EXCEEDED",
}  # of any other refusal: INVALID_ARGUMENT
_TOLD = (REQUEST_ID, b"retry-after")  # headers that a client gets, as metadata after the answer
_Response = tuple[int, bytes, tuple[tuple[str, str], ...]]  # status, body, and metadata after it
_log = logging.getLogger(__name__)


@asynccontextmanager
async def grpc_server(
    app: ASGIApp, routes: list[Route], settings: Settings
) -> AsyncGenerator[None, None]:
    """A context manager: ``app`` answers ``routes`` by gRPC inside the block.

    Workers listen on the same port (``SO_REUSEPORT``): the system gives each connection to one. At
    the end calls that have begun are answered, for as long as requests of HTTP, and while those
    are: it begins with the block's end, or before, with that of :mod:`serving.ending`.
    """
    # Or what clients send, line breaks included, is in the log of its core. Read at the import.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    import grpc

    called: Any = app
    if settings.trusted_proxies:
        called = ProxyHeadersMiddleware(called, list(settings.trusted_proxies))
    calls = _Calls(called, settings)
    logging.getLogger("grpc._cython.cygrpc").addFilter(_is_ours)
    server = grpc.aio.server(
        maximum_concurrent_rpcs=_UNTAKEN * settings.max_connections,
        options=[
            ("grpc.max_receive_message_length", most_bytes(settings)),
            ("grpc.max_metadata_size", HEAD_BYTES),
            ("grpc.absolute_max_metadata_size", HEAD_BYTES),
            ("grpc.max_concurrent_streams", _STREAMS),
            ("grpc.server.max_pending_requests", _PENDING),
            ("grpc.server.max_pending_requests_hard_limit", _PENDING),
            ("grpc.max_allowed_incoming_connections", settings.max_connections),
            ("grpc.max_connection_idle_ms", settings.head_ms),
            ("grpc.max_connection_age_ms", _AGE_MS),
            # For calls that have begun: their upload, and their answer.
            ("grpc.max_connection_age_grace_ms", 2 * settings.deadline_ms + settings.head_ms),
            ("grpc.server_handshake_timeout_ms", settings.head_ms),
        ],
    )
    for route in routes:
        service, _, name = route.path[1:].partition("/")
        # As a stream of one message: it is read only once the token was checked.
        handler = grpc.stream_unary_rpc_method_handler(calls.method(route.path))
        server.add_registered_method_handlers(service, {name: handler})
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    server.add_insecure_port(f"{host}:{settings.grpc_port}")
    await server.start()
    ending = asyncio.Event()
    stopped = asyncio.create_task(_stop(server, calls, ending))
    with told_of_the_end(ending.set):
        try:
            yield
        finally:
            ending.set()
            await stopped


async def _stop(server: Any, calls: _Calls, ending: asyncio.Event) -> None:
    """Stops ``server`` once it is ``ending``, and returns when all calls have ended.

    Before it stops, no call is answered for a moment: what waits for answers sends no calls, which
    would be lost, and hears of the end before them.
    """
    await ending.wait()
    await calls.hold()
    stopping = asyncio.ensure_future(server.stop(GRACE_S))
    await asyncio.sleep(0)  # it begins
    calls.answering.set()
    await stopping
    await calls.ended()


class _Calls:
    """Passes calls on to ``app``.

    Attributes:
        answering: set while answers may be sent.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.answering = asyncio.Event()
        self.answering.set()
        self._begun = 0
        self._most = settings.max_connections
        detail = f"all {self._most} places for calls are taken; try again in {BUSY_S} s"
        body = json.dumps({"detail": detail}).encode()
        self._busy: _Response = (429, body, (("retry-after", str(BUSY_S)),))
        self._app = app
        self._server = (settings.host, settings.grpc_port)
        self._tasks: set[asyncio.Task[None]] = set()
        self._tidying: asyncio.TimerHandle | None = None
        self._again = False

    def method(self, path: str) -> Any:
        """Returns the handler of a method of gRPC."""

        async def handle(messages: Any, context: Any) -> bytes:
            return await self._answer(path, context)

        return handle

    async def hold(self) -> None:
        """Stops answering, and waits until no more calls begin, but not for long."""
        self.answering.clear()
        for _ in range(_HOLDS):
            begun = self._begun
            await asyncio.sleep(_HOLD_S)
            if self._begun == begun:
                break

    async def ended(self) -> None:
        """Waits until the application has answered all calls."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tidying is not None:
            self._tidying.cancel()

    def _tidy_soon(self) -> None:
        """Gives back the memory of large messages, of which glibc would keep a gigabyte.

        It does so once a second, the last time a second or two after the last of them.
        """

        def tidy() -> None:
            again, self._tidying, self._again = self._again, None, False
            loop.run_in_executor(None, give_back)
            if again:
                self._tidy_soon()

        loop = asyncio.get_running_loop()
        if self._tidying is None:
            self._tidying = loop.call_later(_TIDY_S, tidy)
        else:
            self._again = True

    async def _answer(self, path: str, context: Any) -> bytes:
        import grpc

        self._begun += 1
        status, body, told = self._busy if self._is_full else await self._ask(path, context)
        await self.answering.wait()
        if status != HTTPStatus.OK:
            # Not as an answer with a code: an empty message before it would wait to be taken.
            code = grpc.StatusCode[_CODES.get(HTTPStatus(status), "INVALID_ARGUMENT")]
            await context.abort(code, json.loads(body)["detail"], told)
        context.set_trailing_metadata(told)
        return body

    @property
    def _is_full(self) -> bool:
        """Returns whether all places are taken.

        A call has none any more once it is answered: some clients, which do not take their answers,
        would have all of them.
        """
        return len(self._tasks) >= self._most

    async def _ask(self, path: str, context: Any) -> _Response:
        """Returns what the application answers; if it fails, what it said before."""
        import grpc

        gone = asyncio.Event()
        has_read = is_large = False
        status, body = 500, b""
        told: list[tuple[str, str]] = []

        async def receive() -> Message:
            nonlocal has_read, is_large
            message = grpc.aio.EOF
            if has_read:
                await gone.wait()
            else:
                has_read = True
                message = await _read(context)
            if message is grpc.aio.EOF:
                return {"type": "http.disconnect"}
            is_large = len(message) > _LARGE
            return {"type": "http.request", "body": message, "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status, body
            if message["type"] == "http.response.start":
                status = message["status"]
                sent = message["headers"]
                told.extend(
                    (name.decode(), value.decode()) for name, value in sent if name in _TOLD
                )
            else:
                body += message["body"]

        # A task of its own: of a call whose client is gone, the application hears as of a request.
        task = asyncio.ensure_future(self._app(self._scope(path, context), receive, send))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            gone.set()
            raise
        except Exception:
            _log.exception("%s failed", path)
        finally:
            if is_large:
                self._tidy_soon()
        return status, body, tuple(told)

    def _scope(self, path: str, context: Any) -> Scope:
        headers = [
            (key.encode(), value if isinstance(value, bytes) else value.encode())
            for key, value in context.invocation_metadata()
        ]
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "2",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": b"",
            "headers": headers,
            "client": _client(context.peer()),
            "server": self._server,
        }


def _is_ours(record: logging.LogRecord) -> bool:
    """Returns whether a line of grpcio is of an error: not of a client that left too early."""
    return not record.exc_info or type(record.exc_info[1]).__name__ != "ExecuteBatchError"


async def _read(context: Any) -> Any:
    """Returns the next message; EOF if there is none, or the client is gone."""
    import grpc

    try:
        return await context.read()
    except asyncio.CancelledError:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        return grpc.aio.EOF  # the call was cancelled, not this task


def _client(peer: str) -> tuple[str, int] | None:
    """Returns address and port of ``ipv4:127.0.0.1:80`` or ``ipv6:%5B::1%5D:80``."""
    kind, _, address = unquote(peer).partition(":")
    host, _, port = address.rpartition(":")
    return (host.strip("[]"), int(port)) if kind in ("ipv4", "ipv6") else None
