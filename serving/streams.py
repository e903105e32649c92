"""Requests that come by an HTTP/2 connection: their bodies, and their answers.

A client sends no more of a body than was read, and takes as much of an answer as it wants: flow
control, https://www.rfc-editor.org/rfc/rfc9113#section-5.2.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Protocol

from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.exceptions import ProtocolError
from hpack import HeaderTuple

Headers = Iterable[HeaderTuple]
# What h2 says of an answer if the client has ended the request, or the connection, by a frame that
# is handled next: h2 takes all frames apart that came at once, before we hear of the first.
unless_ended = suppress(ProtocolError)


class Carrier(Protocol):
    """The connection of a request.

    Attributes:
        state: that of h2.
        client: address and port, if known.
        is_full: whether the client does not take what it is sent.
    """

    state: H2Connection
    client: tuple[Any, ...] | None
    is_full: bool

    def flush(self) -> None:
        """Sends what h2 has to send."""

    def sent(self) -> None:
        """Counts a frame of an answer."""

    def keep(self, size: int) -> bool:
        """Returns whether there is room for so many bytes of an answer, until it is taken."""

    def forget(self, stream: Stream) -> None:
        """Ends a request that is answered, or needs no answer."""


class Stream:
    """A request: its headers, and its body.

    Attributes:
        number: of its stream.
        headers: names and values, with those that begin with a colon.
        size: of them, in bytes as HTTP/2 counts.
        client: address and port, if known.
        gone: set once nobody waits for the answer.
        is_answered: whether all of the answer was sent.
        kept: bytes of the answer for which there is room.
    """

    def __init__(self, connection: Carrier, number: int, headers: Any, size: int) -> None:
        self._connection = connection
        self._state = connection.state
        self.number = number
        self.headers: list[tuple[bytes, bytes]] = headers
        self.size = size
        self.client = connection.client
        self.gone = asyncio.Event()
        self.is_answered = False
        self.kept = 0
        self._body = bytearray()
        self._has_ended = False
        self._waiter: asyncio.Future[None] | None = None
        self._unsent = memoryview(b"")
        self._tail: Headers | None = None  # what is sent after that

    async def read(self, count: int) -> bytes:
        """Returns the next ``count`` bytes of the body; fewer at its end, or if nobody waits.

        Bytes that come are taken at once, and the client may send as many more: all requests of a
        connection share what may be sent, so they could wait for each other.
        """
        data = bytearray()
        while True:
            part = self._body[: count - len(data)]
            del self._body[: len(part)]
            data += part
            if part and not self.gone.is_set():
                self._state.acknowledge_received_data(len(part), self.number)
                self._connection.flush()
            if len(data) == count or self._has_ended or self.gone.is_set():
                return bytes(data)
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def keep(self, size: int) -> bool:
        """Returns whether an answer of so many bytes may wait to be taken."""
        if not self._connection.keep(size):
            return False
        self.kept += size
        return True

    def answer(self, head: Headers, body: bytes, tail: Headers) -> None:
        """Sends headers, a body and trailers; the body as the client takes it.

        What the client still sends is dropped.
        """
        if self.gone.is_set():
            return
        with unless_ended:
            self._drop(len(self._body))
            self._body.clear()
            self._state.send_headers(self.number, head)
            self._unsent, self._tail = memoryview(body), tail
            self.send_more()

    def refuse(self, head: Headers) -> None:
        """Sends headers alone."""
        if self.gone.is_set():
            return
        with unless_ended:
            self._state.send_headers(self.number, head, end_stream=True)
            self._finish()

    def send_more(self) -> None:
        """Sends of the body what the client takes, and after the last of it the trailers."""
        if self._tail is None:
            return
        with unless_ended:
            while self._unsent and not self._connection.is_full:
                room = self._state.local_flow_control_window(self.number)
                size = min(room, self._state.max_outbound_frame_size, len(self._unsent))
                if size <= 0:
                    break
                self._state.send_data(self.number, self._unsent[:size].tobytes())
                self._connection.sent()
                self._unsent = self._unsent[size:]
                if self._unsent:
                    self._connection.flush()
            if self._unsent:
                self._connection.flush()  # the headers, if there is no room for more
                return
            self._state.send_headers(self.number, self._tail, end_stream=True)
            self._finish()

    # What its connection calls --------------------------------------------------------------------

    @property
    def untaken(self) -> int:
        """Returns how many bytes of the answer the client has not taken."""
        return len(self._unsent)

    @property
    def waits(self) -> bool:
        """Returns whether nothing can be done until the client sends, or takes, something."""
        return self._tail is not None or not self._has_ended

    def feed(self, data: bytes) -> None:
        """Takes the next bytes of the body."""
        if self._tail is not None:
            self._drop(len(data))
            return
        self._body += data
        self._wake()

    def end(self) -> None:
        """Takes the end of the body."""
        self._has_ended = True
        self._wake()

    def abandon(self) -> None:
        """Ends the request, whose answer nobody wants any more."""
        self._leave()

    # Ours -----------------------------------------------------------------------------------------

    def _drop(self, size: int) -> None:
        """Lets other requests of the connection have so many bytes more, but not this one."""
        if size:
            self._state.increment_flow_control_window(size)

    def _finish(self) -> None:
        if not self._has_ended:  # nobody reads the rest
            with unless_ended:
                self._state.reset_stream(self.number, ErrorCodes.NO_ERROR)
        self._connection.flush()
        self.is_answered = True
        self._leave()

    def _leave(self) -> None:
        self.gone.set()
        self._wake()
        self._tail, self._unsent = None, memoryview(b"")
        if self._body:
            self._state.acknowledge_received_data(len(self._body), self.number)
            self._body.clear()
        self._connection.forget(self)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
