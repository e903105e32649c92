"""A minimal HTTP/1.1 client for load: sends prepared requests and reads whole responses.

It shares the processor with the server, so it does as little as possible: requests are built once,
connections are persistent without pipelining, and responses must have a Content-Length. aiohttp's
client takes 4 times as much CPU time per request, httpx's 30 times.
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

_MOST_HEAD, _MOST_BODY = 64 * 1024, 64 * 1024 * 1024  # limits of a response in bytes
_STATUS = re.compile(rb"HTTP/1\.[01] ([1-5]\d\d)[ \r]")
_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,9})[ \t]*(?=\r\n)")
_CLOSES = re.compile(rb"^http/1\.0|\r\nconnection:[ \t]*close[ \t]*\r\n")


class Answer(NamedTuple):
    """An HTTP response."""

    status: int
    body: bytes


class NoAnswer(Exception):
    """A request without a response; the message is one of a few short reasons."""


@dataclass(frozen=True, slots=True)
class Address:
    """The target of requests: host and port on this machine, and a path with its query."""

    host: str
    port: int
    path: str

    @property
    def authority(self) -> str:
        """Returns ``host:port`` as in a URL."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """Returns the URL."""
        return f"http://{self.authority}{self.path}"

    def with_path(self, path: str) -> Address:
        """Returns the address with another path."""
        return Address(self.host, self.port, path)


def check_loopback(url: str) -> Address:
    """Parses ``url`` and checks that its host is this machine.

    Raises:
        UserError: it is not an HTTP URL of this machine.
    """
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 80
        good = parts.scheme == "http" and url.isascii() and url.isprintable() and " " not in url
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # not a URL, or the host is a name
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
    """A connection to ``address`` that is opened when needed, and reopened after it was closed."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._waiting: asyncio.Future[Answer] | None = None

    async def open(self) -> None:
        """Connects.

        Raises:
            NoAnswer: the connection is refused.
        """
        if self._transport is None:
            loop = asyncio.get_running_loop()
            try:
                await loop.create_connection(lambda: self, self._address.host, self._address.port)
            except OSError:
                raise NoAnswer("refused") from None

    async def send(self, request: bytes) -> Answer:
        """Sends the bytes of a request and returns the response.

        Raises:
            NoAnswer: refused, closed before the end, or the response is not valid HTTP.
        """
        await self.open()
        if self._transport is None:  # closed by the server at once
            raise NoAnswer("closed")
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._waiting
        finally:
            self._waiting = None

    def close(self) -> None:
        """Closes immediately; the next request reopens it."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        self._received.clear()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Stores the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Completes the request once its response is complete."""
        self._received += data
        try:
            if self._waiting is None or self._waiting.done():
                raise NoAnswer("not HTTP")  # unsolicited bytes
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
        """Fails the pending request, if any."""
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
    """Parses a response; returns it and whether the server closes, or None while incomplete.

    Raises:
        NoAnswer: not exactly one response with a Content-Length.
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
