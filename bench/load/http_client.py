"""A small HTTP/1.1 client for load: whole requests in, whole answers out.

What the client takes of a shared processor the server lacks, so it does little: requests are made
once, a connection is kept open and carries one of them at a time, and answers need a
Content-Length. aiohttp's client takes four times its CPU time for a request, httpx's thirty times.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import secrets
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import urlsplit

from core.errors import UserError

_MOST_HEAD, _MOST_BODY = 64 * 1024, 64 * 1024 * 1024  # bytes of an answer
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)[ \r]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*(?=\r\n)")
_CLOSES = re.compile(rb"^http/1\.0|\r\nconnection:[ \t]*close[ \t]*\r\n")


class Answer(NamedTuple):
    """What came back for a request."""

    status: int
    body: bytes


class NoAnswer(Exception):
    """A request without an answer; the message is one of a few short reasons."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to send requests: a port of this machine, and a path with its query."""

    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Returns ``host:port``, as it stands in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Returns the whole address as a URL."""
        return f"http://{self.authority}{self.path}"

    def with_path(self, path: str) -> Address:
        """Returns another path of the same server."""
        return Address(self.host, self.port, path)


def check_loopback(url: str) -> Address:
    """Returns the address in ``url``: load is for one's own server.

    Raises:
        UserError: it is not HTTP on this machine.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 80
        good = parts.scheme == "http" and url.isascii() and url.isprintable() and " " not in url
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # no URL, or a host that is a name
        good = loopback = False
    if not (good and loopback):
        raise UserError(
            f"url is {url!r}: load is sent only to http://127.0.0.1:PORT, ::1 or localhost; "
            "for another machine, run this there"
        )
    return Address(host, port, f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}")


def make_request(
    address: Address, body: bytes = b"", content_type: str | None = None, token: str | None = None
) -> bytes:
    """Returns the bytes of a request: a POST of ``body``, or a GET without a content type."""
    lines = [
        f"{'GET' if content_type is None else 'POST'} {address.path} HTTP/1.1",
        f"Host: {address.authority}",
    ]
    if token:
        lines.append(f"Authorization: Bearer {token}")
    if content_type is not None:
        lines += [f"Content-Type: {content_type}", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def make_form(file: bytes, field: str = "image") -> tuple[bytes, str]:
    """Returns the body and the content type of a multipart form with one file."""
    boundary = secrets.token_hex(16)
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{field}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = head.encode() + file + f"\r\n--{boundary}--\r\n".encode()
    return body, f"multipart/form-data; boundary={boundary}"


class Connection(asyncio.Protocol):
    """A connection to ``address`` that is opened when needed, and again after it was closed."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._waiting: asyncio.Future[Answer] | None = None

    async def open(self) -> None:
        """Connects.

        Raises:
            NoAnswer: nobody listens.
        """
        if self._transport is None:
            loop = asyncio.get_running_loop()
            try:
                await loop.create_connection(lambda: self, self._address.host, self._address.port)
            except OSError:
                raise NoAnswer("refused") from None

    async def send(self, request: bytes) -> Answer:
        """Returns the answer to the bytes of a request.

        Raises:
            NoAnswer: refused, closed before the end, or something else than HTTP came.
        """
        await self.open()
        if self._transport is None:  # closed as soon as opened
            raise NoAnswer("closed")
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._waiting
        finally:
            self._waiting = None

    def close(self) -> None:
        """Closes at once; the next request opens again."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        self._received.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keeps the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Ends the request once its answer is whole."""
        self._received += data
        try:
            if self._waiting is None or self._waiting.done():
                raise NoAnswer("not HTTP")  # bytes that nobody asked for
            found = read_answer(self._received)
        except NoAnswer as error:
            self._end(error)
            self.close()
            return
        if found is not None:
            answer, closes = found
            self._received.clear()
            self._end(answer)
            if closes:
                self.close()

    def connection_lost(self, exception: Exception | None) -> None:
        """Ends the request that waits, if any, without an answer."""
        self._end(NoAnswer("closed"))
        self._transport = None
        self._received.clear()

    def _end(self, outcome: Answer | NoAnswer) -> None:
        if self._waiting is None or self._waiting.done():
            return
        if isinstance(outcome, Answer):
            self._waiting.set_result(outcome)
        else:
            self._waiting.set_exception(outcome)


def read_answer(received: bytearray) -> tuple[Answer, bool] | None:
    """Returns the answer and whether the server closes now; None while some of it is missing.

    Raises:
        NoAnswer: something else than one answer with a Content-Length.
    """
    end = received.find(b"\r\n\r\n")
    if end < 0:
        if len(received) > _MOST_HEAD:
            raise NoAnswer("not HTTP")
        return None
    head = bytes(received[: end + 2])
    status = _STATUS.match(head)
    head = head.lower()
    lengths = set(_LENGTH.findall(head))
    if status is None:
        raise NoAnswer("not HTTP")
    if len(lengths) != 1 or b"\r\ntransfer-encoding:" in head:
        raise NoAnswer("no Content-Length")
    length = int(lengths.pop())
    body = len(received) - end - 4
    if length > _MOST_BODY or body > length:
        raise NoAnswer("not HTTP")
    if body < length:
        return None
    return Answer(int(status[1]), bytes(received[end + 4 :])), bool(_CLOSES.search(head))
