"""Connections: their bounds, how they end, and offers to upgrade."""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPResponse
from typing import Any

import pytest
import uvicorn
import uvicorn._subprocess
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState
from uvicorn.supervisors import Multiprocess, multiprocess

from serving.protocol import HEAD_BYTES, HEAD_LINES, connection_class

REPLY_S = 30
LARGE = 50_000_000
SHORT_S, LONG_S = 0.3, 60.0
READ = b"POST /read HTTP/1.1\r\nHost: x\r\n"
Connect = Callable[[], "Client"]


class App:
    """Answers with what it was asked: at once, or after the body was read.

    ``/read`` answers the length of the body; ``/wait`` when the test sets ``go``; the others
    at once, without a look at the body.
    """

    def __init__(self) -> None:
        self.go = threading.Event()
        self.lost = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        size, path = 0, scope["path"]
        more = path == "/read"
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.lost.set()
                return
            size += len(message["body"])
            more = message["more_body"]
        if path == "/wait":
            await asyncio.to_thread(self.go.wait)
        names = sorted(name.decode() for name, _ in scope["headers"])
        body = json.dumps({"path": path, "size": size, "names": names}).encode()
        if path == "/large":
            body = bytes(LARGE)
        length = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": body})


class Client:
    """One connection, and what comes over it."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=REPLY_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.socket.sendall(part)

    def answer(self, method: str = "GET") -> tuple[int, dict[str, Any], bool]:
        """Returns status and body of the next answer, and whether it says that it is the last."""
        response = HTTPResponse(_Unbuffered(self.socket), method=method)  # type: ignore[arg-type]
        response.begin()
        body = json.loads(response.read())
        return response.status, body, response.getheader("connection") == "close"

    def error(self) -> tuple[int, str]:
        """Returns status and code of an error, after which the connection ends."""
        status, body, last = self.answer()
        assert set(body) == {"error", "detail"}
        assert last
        assert self.ended()
        return status, body["error"]

    def rest(self) -> bytes:
        """Returns what still comes, up to the connection's end or reset."""
        parts = []
        with suppress(ConnectionError):
            while part := self.socket.recv(1 << 20):
                parts.append(part)
        return b"".join(parts)

    def ended(self) -> bool:
        """Returns whether nothing more comes."""
        return self.socket.recv(1) == b""


class _Unbuffered:
    """A socket whose file reads no byte of the next answer."""

    def __init__(self, connected: socket.socket) -> None:
        self._connected = connected

    def makefile(self, mode: str) -> Any:
        return self._connected.makefile(mode, buffering=0)


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def serve(app: App) -> Callable[..., Any]:
    """Returns a context manager: a server in this process, yielded as what connects to it."""

    @contextmanager
    def served(*, most: int = 50, head_s: float = LONG_S) -> Iterator[Connect]:
        connections = connection_class(most, head_s)
        config = uvicorn.Config(app, http=connections, log_config=None, access_log=False, ws="none")
        server = uvicorn.Server(config)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            try:
                with ExitStack() as clients:
                    yield lambda: clients.enter_context(closing(Client(port)))
            finally:
                app.go.set()
                server.should_exit = True
                thread.join()

    return served


@pytest.fixture
def connect(serve: Callable[..., Any]) -> Iterator[Connect]:
    with serve() as connecting:
        yield connecting


def get(path: str, *lines: bytes) -> bytes:
    return b"\r\n".join([f"GET {path} HTTP/1.1".encode(), b"Host: x", *lines, b"", b""])


# What is uvicorn's --------------------------------------------------------------------------------

OVERRIDDEN = [
    *("_unset_keepalive_if_required", "connection_lost", "connection_made", "data_received"),
    *("on_body", "on_header", "on_headers_complete", "on_message_begin", "on_message_complete"),
    *("on_response_complete", "pause_writing", "resume_writing", "shutdown"),
    "timeout_keep_alive_handler",
]
USED = [
    *("cycle", "connections", "flow", "headers", "loop", "parser", "pipeline", "server_state"),
    *("timeout_keep_alive_task", "transport", "url"),
]
USED_OF_A_REQUEST = [
    *("disconnected", "keep_alive", "message_event", "more_body", "response_complete"),
    *("response_started", "transport"),
]


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_uvicorn_still_calls_what_is_overridden(name: str) -> None:
    assert callable(getattr(HttpToolsProtocol, name, None)), moved("HttpToolsProtocol", name)


def test_uvicorn_still_keeps_what_is_used() -> None:
    config = uvicorn.Config(App(), log_config=None)
    protocol = HttpToolsProtocol(config, ServerState(), {}, asyncio.new_event_loop())
    protocol.on_message_begin()
    protocol.loop.close()
    for name in USED:
        assert hasattr(protocol, name), moved("HttpToolsProtocol", name)
    cycle = RequestResponseCycle({}, *[None] * 8, True, None)  # type: ignore[call-arg,arg-type,misc]
    for name in USED_OF_A_REQUEST:
        assert hasattr(cycle, name), moved("RequestResponseCycle", name)
    assert hasattr(FlowControl, "resume_reading"), moved("FlowControl", "resume_reading")
    assert hasattr(uvicorn._subprocess, "spawn"), moved("_subprocess", "spawn")
    for name in ("keep_subprocess_alive", "handle_hup"):
        assert hasattr(Multiprocess, name), moved("Multiprocess", name)
    assert "child_conn" in inspect.getsource(multiprocess.Process), moved("Process", "child_conn")


def moved(where: str, name: str) -> str:
    version = uvicorn.__version__
    return f"uvicorn {version} has no {where}.{name} any more, which serving/ relies on"


# Ends ---------------------------------------------------------------------------------------------


def test_a_connection_carries_one_request_after_another(connect: Connect) -> None:
    client = connect()
    for size in (3, 200_000, 0):  # more than a head may have, and with it in one packet
        client.send(READ + b"Content-Length: %d\r\n\r\n" % size + bytes(size))
        status, body, last = client.answer()
        assert (status, body["size"], last) == (200, size, False)
    client.send(get("/a"), get("/b"))
    assert [client.answer()[1]["path"] for _ in "ab"] == ["/a", "/b"]


def test_an_answer_before_the_end_of_the_body_is_the_last(connect: Connect) -> None:
    client = connect()
    client.send(
        b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 8000000\r\n\r\n", bytes(4_000_000)
    )
    status, _, last = client.answer()
    assert (status, last) == (200, True)
    client.send(bytes(4_000_000))  # is read, so that nobody who sends first loses the answer
    assert client.ended()


def test_who_sends_all_before_reading_gets_the_answer(connect: Connect) -> None:
    client = connect()
    client.send(
        b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 20000000\r\n\r\n", bytes(20_000_000)
    )
    status, _, last = client.answer()
    assert (status, last) == (200, True)
    assert client.ended()


def test_who_asks_before_sending(connect: Connect) -> None:
    ask = b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n"
    client = connect()
    client.send(READ + ask)
    assert client.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"abc")
    assert client.answer()[1:] == ({"path": "/read", "size": 3, "names": client_names()}, False)
    client.send(b"POST /early HTTP/1.1\r\nHost: x\r\n" + ask)
    assert client.answer()[2]
    assert client.ended()


def client_names() -> list[str]:
    return ["content-length", "expect", "host"]


def test_what_follows_a_request_and_is_none_is_said_after_its_answer(
    connect: Connect, app: App
) -> None:
    client = connect()
    client.send(get("/wait") + get("/b") + b"NONSENSE\r\n\r\n", b"more of it")
    app.go.set()
    status, body, last = client.answer()
    assert (status, body["path"], last) == (200, "/wait", False)
    status, body, last = client.answer()
    assert (status, body["path"], last) == (200, "/b", True)
    assert client.ended()


@pytest.mark.parametrize(
    "data",
    [
        b"NONSENSE\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\n\r\n",
        b"GET // HTTP/9\r\n\r\n",
        b"CONNECT example.org:443 HTTP/1.1\r\nHost: example.org\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        get("/", b"X: \0"),
        b"GET / HTTP/1.1\r\n\r\n",
        get("/", b"Host: y"),
        get("/", b"Content-Length: 1", b"Content-Length: 2"),
        READ + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
def test_what_is_no_request(connect: Connect, data: bytes) -> None:
    client = connect()
    client.send(data)
    assert client.error() == (400, "bad_request")


def test_a_host_is_not_asked_of_older_clients(connect: Connect) -> None:
    client = connect()
    client.send(b"GET /old HTTP/1.0\r\n\r\n")
    assert client.answer()[:2] == (200, {"path": "/old", "size": 0, "names": []})


@pytest.mark.parametrize("codings", [[b"gzip, chunked"], [b"gzip", b"chunked"]])
def test_a_transfer_coding_beside_chunked(connect: Connect, codings: list[bytes]) -> None:
    client = connect()
    lines = [b"Transfer-Encoding: " + coding for coding in codings]
    client.send(READ + b"\r\n".join([*lines, b"", b"0", b"", b""]))
    assert client.error() == (501, "unsupported_transfer_coding")


def test_a_broken_body_is_told_to_its_reader(connect: Connect, app: App) -> None:
    client = connect()
    client.send(READ + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", b"zz\r\n")
    assert client.error() == (400, "bad_request")
    assert app.lost.wait(REPLY_S)


# Heads --------------------------------------------------------------------------------------------


def test_a_head_at_its_limits_is_taken(connect: Connect) -> None:
    client = connect()
    client.send(get("/", *[b"A: b"] * (HEAD_LINES - 1)))
    assert client.answer()[0] == 200
    client.send(get("/", b"A: " + b"b" * (HEAD_BYTES - 100)))
    assert client.answer()[0] == 200


LONG = b"b" * HEAD_BYTES


@pytest.mark.parametrize(
    "head",
    [
        [get("/", *[b"A: b"] * HEAD_LINES)],
        [get("/", b"A: " + LONG)],
        [get("/", b"A: " + LONG[::2], b"B: " + LONG[::2])],
        [get("/", LONG + b": a")],
        [get("/" + LONG.decode())],
        [b"GET /", *[b"a" * 1000] * 70],
        [get("/")[:-2], *[b"b" * 1000] * 70],
        [get("/")[:-2] + b"A: ", *[b"b" * 1000] * 70],
        [b"\r\n" * 1000] * 40,
        [get("/", b"Connection: upgrade", b"Upgrade: h2c", *[b"A: b"] * HEAD_LINES)],
    ],
)
def test_a_head_beyond_them_is_refused(connect: Connect, head: list[bytes]) -> None:
    client = connect()
    client.send(*head)
    assert client.error() == (431, "head_too_large")


def test_a_second_head_has_the_same_limits(connect: Connect) -> None:
    client = asked(connect())
    client.send(get("/", *[b"A: b"] * HEAD_LINES))
    assert client.error() == (431, "head_too_large")


@pytest.mark.parametrize("line", [b"A: b\r\n" * 170, b"b" * 1000])
def test_what_follows_a_body_has_their_limits(connect: Connect, line: bytes) -> None:
    client = connect()
    start = READ + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"
    client.send(start, *[line] * 400)  # more than is read at once
    assert client.error() == (431, "head_too_large")


def test_what_follows_a_body_is_no_header(connect: Connect) -> None:
    client = connect()
    client.send(
        READ + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nAuthorization: x\r\n\r\n"
    )
    assert client.answer()[1]["names"] == ["host", "transfer-encoding"]


@pytest.mark.parametrize("before", [[], [get("/")]], ids=["first", "second"])
@pytest.mark.parametrize("head", [get("/")[:-2], b"G", b"\r\n"])
def test_a_head_that_does_not_end(
    serve: Callable[..., Any], before: list[bytes], head: bytes
) -> None:
    with serve(head_s=SHORT_S) as connect:
        client = connect()
        client.send(*before)
        for _ in before:
            assert client.answer()[0] == 200
        client.send(head)
        assert client.error() == (408, "slow_head")


def test_a_head_that_comes_slowly_is_taken(serve: Callable[..., Any]) -> None:
    with serve(head_s=REPLY_S) as connect:
        client = connect()
        client.send(*[bytes([each]) for each in get("/slow")])
        assert client.answer()[1]["path"] == "/slow"


def test_a_connection_without_a_request_is_closed(serve: Callable[..., Any]) -> None:
    with serve(head_s=SHORT_S) as connect:
        assert connect().ended()


def test_a_server_that_ends_says_which_answer_is_the_last(serve: Callable[..., Any]) -> None:
    statuses: list[int] = []

    def ask(client: Client) -> None:
        last = False
        while not last:  # it would be an error if the connection ended without a word
            client.send(get("/b"))
            status, _, last = client.answer()
            statuses.append(status)
            time.sleep(0.1)  # mostly the end comes between two requests

    with ExitStack() as clients, ThreadPoolExecutor(1) as pool:
        with serve() as connect:
            _, port = connect().socket.getpeername()
            client = clients.enter_context(closing(Client(port)))
            asked = pool.submit(ask, client)
            while len(statuses) < 2:
                time.sleep(0.01)
            assert not asked.done()
        asked.result(REPLY_S)
    assert set(statuses) == {200}


def test_time_for_a_head_is_not_for_the_answer(serve: Callable[..., Any], app: App) -> None:
    with serve(head_s=SHORT_S) as connect:
        waits, silent = connect(), connect()
        waits.send(get("/wait"))
        assert silent.ended()
        app.go.set()
        assert waits.answer()[0] == 200


# Many ---------------------------------------------------------------------------------------------


def at_work(client: Client, app: App) -> None:
    """Sends a request whose body has begun, and returns once it is read."""
    client.send(READ + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert client.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"


def asked(client: Client) -> Client:
    client.send(get("/"))
    assert client.answer()[0] == 200
    return client


def test_idle_connections_give_way_first(serve: Callable[..., Any], app: App) -> None:
    with serve(most=4) as connect:
        busy, half = connect(), connect()
        at_work(busy, app)
        half.send(get("/half")[:-2])
        old, young = asked(connect()), asked(connect())
        asked(old)  # so the other one has waited longer
        asked(connect())
        assert young.ended()
        asked(old)
        half.send(b"\r\n")
        assert half.answer()[1]["path"] == "/half"
        busy.send(b"abc")
        assert busy.answer()[1]["size"] == 3


def test_half_heads_and_unread_answers_give_way_next(serve: Callable[..., Any], app: App) -> None:
    with serve(most=3) as connect:
        busy, half, deaf = connect(), connect(), connect()
        at_work(busy, app)
        half.send(get("/half")[:-2])
        deaf.send(get("/large"))
        assert deaf.socket.recv(15) == b"HTTP/1.1 200 OK"
        asked(connect())
        assert half.ended()
        at_work(connect(), app)  # in place of the idle one
        at_work(connect(), app)
        assert len(deaf.rest()) < LARGE
        busy.send(b"abc")
        assert busy.answer()[1]["size"] == 3


def test_where_all_are_at_work_one_more_is_refused(serve: Callable[..., Any], app: App) -> None:
    with serve(most=2) as connect:
        busy = [connect(), connect()]
        for client in busy:
            at_work(client, app)
        for _ in range(3):
            refused = connect()
            refused.send(get("/"))
            assert refused.error() == (503, "full")
        for client in busy:
            client.send(b"abc")
            assert client.answer()[1]["size"] == 3
        asked(connect())


# Offers to upgrade --------------------------------------------------------------------------------

OFFERS = [
    (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
    (b"Connection: keep-alive, Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: eA=="),
    (b"Upgrade: TLS/1.0", b"Connection: Upgrade"),
]


@pytest.mark.parametrize("offer", OFFERS)
@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 70000", bytes(70_000)),
        (b"Transfer-Encoding: chunked", b"3\r\nabc\r\n10000\r\n" + bytes(65536) + b"\r\n0\r\n\r\n"),
        (b"Content-Length: 0", b""),
    ],
)
def test_an_offer_to_upgrade_is_ignored(
    connect: Connect, offer: tuple[bytes, ...], framing: bytes, body: bytes
) -> None:
    size = {70_000: 70_000, 0: 0}.get(len(body), 65_539)
    client = connect()
    request = READ + b"\r\n".join([*offer, framing, b"", b""]) + body
    client.send(request, request)  # the next one on the same connection, too
    for _ in "12":
        status, answer, last = client.answer()
        assert (status, answer["size"], last) == (200, size, False)
        assert "upgrade" not in answer["names"]
    client.send(get("/next"))
    assert client.answer()[1]["path"] == "/next"


def test_an_offer_comes_in_any_pieces(connect: Connect) -> None:
    client = connect()
    request = READ + b"\r\n".join([*OFFERS[0], b"Content-Length: 3", b"", b"abc"])
    for cut in range(1, len(request)):
        client.send(request[:cut], request[cut:])
        status, answer, last = client.answer()
        assert (status, answer["size"], last) == (200, 3, False)


def test_an_offer_and_an_expectation(connect: Connect) -> None:
    client = connect()
    lines = [*OFFERS[0], b"Expect: 100-continue", b"Content-Length: 3", b"", b""]
    client.send(READ + b"\r\n".join(lines))
    assert client.socket.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"abc")
    assert client.answer()[1]["size"] == 3
