"""HTTP/1.1 connections with limits, which close without losing a response.

uvicorn's own accept request heads of any size for any time, before the token is checked; close
while the client is still sending, which then never reads its response; and lose the body of a
request with an Upgrade header. Overridden parts of uvicorn are listed in
tests/serving/test_protocol.py.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.errors import BUSY_S
from serving.metrics import OTHER, count

HEAD_BYTES = 64 * 1024
HEAD_LINES = 100

# How much is read and discarded after the last response. Closing a connection with unread data
# resets it, and the client may lose the response; so the rest of a refused upload is read.
DRAINED_BYTES = 64 << 20
DRAINED_S = 5
LAST_CALL_S = 0.5  # time at shutdown for clients to send their request

Waiting = dict["Connection", None]  # in the order in which they started to wait


class TooLarge(Exception):
    """A head beyond :data:`HEAD_BYTES` or :data:`HEAD_LINES`."""


class BadHead(Exception):
    """A head that the parser accepts but HTTP/1.1 forbids: status, code, one line of detail."""


class Connection(HttpToolsProtocol):
    """One connection. :func:`connection_class` makes the one that a server takes.

    Attributes:
        head_s: seconds for a request head, and for a new connection to start one.
        most: limit of open connections. Beyond it, the first of ``leaving``, else of ``idle``, else
            of ``stuck`` is closed; if there is none, the new connection is refused.
        leaving: connections after their last response.
        idle: connections without a request.
        stuck: connections with a partial head, or a response that the client does not read.
    """

    head_s: ClassVar[float]
    most: ClassVar[int]
    leaving: ClassVar[Waiting]
    idle: ClassVar[Waiting]
    stuck: ClassVar[Waiting]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._among: Waiting | None = None
        self._timer: asyncio.TimerHandle | None = None  # for a head, or for draining
        self._in_head = False
        self._room = 0  # bytes left for the head
        self._unparsed = 0  # bytes that the parser has not yet reported as a complete element
        self._ignores = False  # whether further data is discarded
        self._drained = 0
        self._keep_alive = False  # whether another request may follow this one
        self._ends = False  # whether the server does: the next request is the last

    # What the transport calls ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Enforces the connection limit and starts the timer for a request head."""
        super().connection_made(transport)
        self._exit = _Exit(self, transport)
        self._wait_among(self.idle)
        self.timeout_keep_alive_task = self.loop.call_later(
            self.head_s, self.timeout_keep_alive_handler
        )
        self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection."""
        self._wait_among(None)
        self._stop_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parses ``data``; an Upgrade header is ignored."""
        self._unset_keepalive_if_required()
        if self._ignores:
            self._drained += len(data)
            if self._drained > DRAINED_BYTES:
                self.transport.abort()
            return
        self._unparsed += len(data)
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            if isinstance(error.__context__, TooLarge):
                self._refuse_head()
            elif isinstance(error.__context__, BadHead):
                self._refuse(*error.__context__.args)
            else:
                is_target = isinstance(error, httptools.HttpParserCallbackError)
                reason = "its target is no URL" if is_target else error
                self._refuse(400, "bad_request", f"not a request of HTTP/1.1: {reason}")
            return
        if self._unparsed > HEAD_BYTES:
            self._refuse_head()
        elif self._timer is None and (self._in_head or not self._has_request()):
            self._timer = self.loop.call_later(self.head_s, self._end_head)
            if not self._has_request():
                self._wait_among(self.stuck)

    def pause_writing(self) -> None:
        """Notes that the client does not read its response."""
        super().pause_writing()
        if self._among is not self.leaving:
            self._wait_among(self.stuck)

    def resume_writing(self) -> None:
        """Notes that the client reads again."""
        super().resume_writing()
        if self._among is not self.leaving:
            self._wait_among(None if self._has_request() else self.idle)

    # What the parser calls ------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Starts a request head."""
        super().on_message_begin()
        self._in_head = True
        self._room = HEAD_BYTES

    def on_header(self, name: bytes, value: bytes) -> None:
        """Handles a header line; trailers, after a body, are only counted."""
        self._room -= len(name) + len(value) + 4
        if self._room < 0 or len(self.headers) == HEAD_LINES:
            raise TooLarge
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Starts a request; a response sent before its whole body arrived closes the connection."""
        if self.parser.should_upgrade():
            return  # the head is parsed again, without the Upgrade header
        if len(self.url) > self._room:
            raise TooLarge
        self._check_head()
        self._in_head = False
        self._unparsed = 0
        self._stop_timer()
        self._wait_among(None)
        super().on_headers_complete()
        self.cycle.transport = self._exit  # type: ignore[assignment]
        self._keep_alive = self.cycle.keep_alive and not self._ends
        self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Handles a part of a body."""
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Ends a request; the connection stays open unless the response said otherwise."""
        if self.parser.should_upgrade():
            return
        self._unparsed = 0
        if not self.cycle.response_started:
            self.cycle.keep_alive = self._keep_alive
        super().on_message_complete()

    # What uvicorn calls ---------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """Waits for the next request, or starts one that has already arrived."""
        if self._among is self.leaving:
            self.server_state.total_requests += 1
            return
        super().on_response_complete()
        if self._has_request() or self.transport.is_closing():
            return
        if self._in_head:  # has its own timer
            self._unset_keepalive_if_required()
        is_stuck = self._in_head or self.flow.write_paused
        self._wait_among(self.stuck if is_stuck else self.idle)

    def shutdown(self) -> None:
        """Closes the connection after its current request.

        A request may be on its way, and would be lost. So a connection without a request gets half
        a second for one, whose response says that it is the last.
        """
        self._ends = True
        if self._among is self.leaving:
            self.transport.close()
        elif self._has_request():
            self._shut_down()
        else:
            self.loop.call_later(LAST_CALL_S, self._shut_down)

    # Ours -----------------------------------------------------------------------------------------

    def _shut_down(self) -> None:
        self._keep_alive = False
        super().shutdown()

    def _feed(self, data: bytes) -> None:
        while True:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                if self.parser.get_method() == b"CONNECT":
                    raise httptools.HttpParserError("CONNECT is for proxies") from None
                (end,) = offer.args
                data = self._plain_head() + data[end:]

    def _check_head(self) -> None:
        """Raises BadHead for heads that a proxy may parse differently (RFC 9112, 3.2 and 6.1)."""
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts != 1 and self.parser.get_http_version() == "1.1":
            detail = f"not a request of HTTP/1.1: it has {hosts} headers Host, and needs one"
            raise BadHead(400, "bad_request", detail)
        codings = [value for name, value in self.headers if name == b"transfer-encoding"]
        if codings and b", ".join(codings).lower() != b"chunked":
            shown = repr(b", ".join(codings).decode("latin-1"))[:60]
            detail = f"transfer encoding is {shown}: send chunked, or a Content-Length"
            raise BadHead(501, "unsupported_transfer_coding", detail)

    def _plain_head(self) -> bytes:
        """Returns the head without its Upgrade header, for a new parser.

        The old one treats further data as another protocol. A server that does not upgrade ignores
        the header (RFC 9110, 7.8).
        """
        version = self.parser.get_http_version().encode()
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)]
        lines += [b"%b: %b" % line for line in self.headers if line[0] != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        return b"\r\n".join([*lines, b"", b""])

    def _has_request(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait_among(self, waiting: Waiting | None) -> None:
        if self._among is not None:
            del self._among[self]
        if waiting is not None:
            waiting[self] = None
        self._among = waiting

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _make_room(self) -> None:
        for waiting in (self.leaving, self.idle, self.stuck):
            while len(self.connections) > self.most:
                first = next(iter(waiting), self)
                if first is self:
                    break
                first._wait_among(None)
                self.connections.discard(first)
                first.transport.abort()
        if len(self.connections) > self.most:
            detail = f"all {self.most} connections are in use; try again in {BUSY_S} s"
            self._refuse(503, "full", detail, b"retry-after: %d\r\n" % BUSY_S)

    def _end_head(self) -> None:
        self._refuse(408, "slow_head", f"the head did not end within {self.head_s:g} s")

    def _refuse_head(self) -> None:
        limits = f"{HEAD_BYTES} bytes and {HEAD_LINES} lines"
        self._refuse(431, "head_too_large", f"a request's head may have {limits}")

    def _refuse(self, status: int, code: str, detail: str, header: bytes = b"") -> None:
        """Responds to an invalid request, after all earlier ones, and closes."""
        self._ignores = True
        self._stop_timer()
        if self._has_request():
            if not self.cycle.more_body:  # that request is answered first
                self._keep_alive = self.cycle.keep_alive = False
                return
            self.cycle.disconnected = True  # the body is broken
            self.cycle.message_event.set()
            if self.cycle.response_started or self.pipeline:
                self.transport.close()
                return
        count(OTHER, status)
        body = json.dumps({"error": code, "detail": detail}).encode()
        head = [STATUS_LINE[status], header, b"content-type: application/json\r\n"]
        head += [b"%b: %b\r\n" % line for line in self.server_state.default_headers]
        head.append(b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body))
        self.transport.write(b"".join([*head, body]))
        self._leave()

    def _leave(self) -> None:
        """Closes the sending side, and keeps reading for a while."""
        if self.transport.is_closing():
            return
        self._ignores = True
        self._wait_among(self.leaving)
        self.flow.resume_reading()
        self.transport.write_eof()
        self._timer = self.loop.call_later(DRAINED_S, self.transport.abort)


class _Exit:
    """The transport given to a request; its ``close`` calls :class:`Connection`'s own."""

    __slots__ = ("_connection", "is_closing", "write")

    def __init__(self, connection: Connection, transport: asyncio.Transport) -> None:
        self._connection = connection
        self.is_closing = transport.is_closing
        self.write = transport.write

    def close(self) -> None:
        """Closes the connection, at once if the client has sent everything."""
        connection = self._connection
        if connection._ignores or connection.cycle.more_body:
            connection._leave()
        else:
            connection.transport.close()


def connection_class(most: int, head_s: float) -> type[Connection]:
    """Returns a connection class for a server with at most ``most`` open connections."""
    bounds = {"most": most, "head_s": head_s, "leaving": {}, "idle": {}, "stuck": {}}
    return type("Connection", (Connection,), bounds)
