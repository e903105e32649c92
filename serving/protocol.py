"""HTTP/1.1 connections with limits, which close without losing an answer.

uvicorn's take a head of any size for any time, before a token is asked for; close on a client that
still sends, which then never reads its answer; and lose the body of a request that offers to
upgrade. All of uvicorn's that is overridden here is listed in tests/serving/test_protocol.py.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from serving.batcher import BUSY_S
from serving.metrics import OTHER, count

HEAD_BYTES = 64 * 1024
HEAD_LINES = 100

# What is read, and dropped, after the last answer. Who closes on unread data resets the connection,
# and the client may lose the answer; the rest of an upload that was refused has to arrive.
DRAINED_BYTES = 64 << 20
DRAINED_S = 5
LAST_CALL_S = 0.5  # what a client has at shutdown to send its request

Waiting = dict["Connection", None]  # in the order in which they began to wait


class TooLarge(Exception):
    """A head beyond :data:`HEAD_BYTES` or :data:`HEAD_LINES`."""


class BadHead(Exception):
    """A head that the parser takes, and HTTP/1.1 does not: status, code and one line of detail."""


class Connection(HttpToolsProtocol):
    """One connection. :func:`connection_class` makes the one that a server takes.

    Attributes:
        head_s: seconds for a head, and for a new connection to begin one.
        most: connections open at once. Beyond that the first of ``leaving``, then of ``idle``, then
            of ``stuck`` is closed, or if there is none the new one is refused.
        leaving: those that have had their last answer.
        idle: those without a request.
        stuck: those with half a head, or an answer that the client does not read.
    """

    head_s: ClassVar[float]
    most: ClassVar[int]
    leaving: ClassVar[Waiting]
    idle: ClassVar[Waiting]
    stuck: ClassVar[Waiting]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._among: Waiting | None = None
        self._timer: asyncio.TimerHandle | None = None  # of a head, or of the drain
        self._in_head = False
        self._room = 0  # bytes that the head may still have
        self._unparsed = 0  # bytes of which the parser has made nothing whole yet
        self._ignores = False  # what comes now is no request any more
        self._drained = 0
        self._keep_alive = False  # whether it may carry another request after this one

    # What the transport calls ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Makes room for the connection, and gives it time to begin a request."""
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
        """Parses what came; a request that offers to upgrade is taken as if it did not."""
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
        """Notes that the client does not read its answer."""
        super().pause_writing()
        if self._among is not self.leaving:
            self._wait_among(self.stuck)

    def resume_writing(self) -> None:
        """Notes that the client reads on."""
        super().resume_writing()
        if self._among is not self.leaving:
            self._wait_among(None if self._has_request() else self.idle)

    # What the parser calls ------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Opens a head."""
        super().on_message_begin()
        self._in_head = True
        self._room = HEAD_BYTES

    def on_header(self, name: bytes, value: bytes) -> None:
        """Takes a line of the head; those after a body (trailers) are counted only."""
        self._room -= len(name) + len(value) + 4
        if self._room < 0 or len(self.headers) == HEAD_LINES:
            raise TooLarge
        if self._in_head:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Starts a request. As long as its body is not all there, its answer closes."""
        if self.parser.should_upgrade():
            return  # it comes again, without the offer
        if len(self.url) > self._room:
            raise TooLarge
        self._check_head()
        self._in_head = False
        self._unparsed = 0
        self._stop_timer()
        self._wait_among(None)
        super().on_headers_complete()
        self.cycle.transport = self._exit  # type: ignore[assignment]
        self._keep_alive, self.cycle.keep_alive = self.cycle.keep_alive, False

    def on_body(self, body: bytes) -> None:
        """Takes a part of a body."""
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Ends a request; if no answer said otherwise yet, the connection stays."""
        if self.parser.should_upgrade():
            return
        self._unparsed = 0
        if not self.cycle.response_started:
            self.cycle.keep_alive = self._keep_alive
        super().on_message_complete()

    # What uvicorn calls ---------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        """Waits for the next request, or turns to one that is there."""
        if self._among is self.leaving:
            self.server_state.total_requests += 1
            return
        super().on_response_complete()
        if self._has_request() or self.transport.is_closing():
            return
        if self._in_head:  # has its own time
            self._unset_keepalive_if_required()
        is_stuck = self._in_head or self.flow.write_paused
        self._wait_among(self.stuck if is_stuck else self.idle)

    def shutdown(self) -> None:
        """Closes the connection after what is in hand.

        A client whose connection was accepted may have sent its request, as far as it knows, and
        would lose it. So one without a request in hand gets half a second for one.
        """
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
        """Raises BadHead for what a proxy may read in another way (RFC 9112, 3.2 and 6.1)."""
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
        """Returns the head again without its offer to upgrade, for a new parser.

        The old one took what follows for another protocol. Who does not upgrade answers as if
        there were no such offer (RFC 9110, 7.8).
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
        """Answers what is no request, after all those before it, and closes."""
        self._ignores = True
        self._stop_timer()
        if self._has_request():
            if not self.cycle.more_body:  # answered first, and then there is no more to say
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
        """Says that nothing more follows, and reads on for a while."""
        if self.transport.is_closing():
            return
        self._ignores = True
        self._wait_among(self.leaving)
        self.flow.resume_reading()
        self.transport.write_eof()
        self._timer = self.loop.call_later(DRAINED_S, self.transport.abort)


class _Exit:
    """What a request takes for its transport: closing ends it as :class:`Connection` wants."""

    __slots__ = ("_connection", "is_closing", "write")

    def __init__(self, connection: Connection, transport: asyncio.Transport) -> None:
        self._connection = connection
        self.is_closing = transport.is_closing
        self.write = transport.write

    def close(self) -> None:
        """Closes the connection, at once if its client has sent all."""
        connection = self._connection
        if connection._ignores or connection.cycle.more_body:
            connection._leave()
        else:
            connection.transport.close()


def connection_class(most: int, head_s: float) -> type[Connection]:
    """Returns the class of a server's connections, of which ``most`` are open at once."""
    bounds = {"most": most, "head_s": head_s, "leaving": {}, "idle": {}, "stuck": {}}
    return type("Connection", (Connection,), bounds)
