"""Calls of gRPC as requests of ASGI: the message is the body, and a status of HTTP a code.

https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md says what a call looks like.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import zlib
from collections.abc import Iterable
from enum import IntEnum
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from hpack import HeaderTuple, NeverIndexedHeaderTuple
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.access_log import REQUEST_ID
from serving.errors import BUSY_S, Refusal
from serving.frames import MOST_HEADERS
from serving.memory import give_back
from serving.metrics import OTHER, count
from serving.protocol import HEAD_LINES
from serving.streams import Stream
from serving.uploads import check_ratio

_PIECE = 1 << 16  # bytes of a message that are passed on at once
_LARGE = 1 << 20  # bytes of a message after which memory is given back
_TIDY_S = 1.0  # later
_PREFIX = 5  # bytes before a message: whether it is compressed, and its length in four
_CODINGS = {b"gzip": 16 + zlib.MAX_WBITS, b"deflate": zlib.MAX_WBITS}  # what zlib is to expect
_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_UNITS = {b"H": 3600, b"M": 60, b"S": 1, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_LONGEST_S = 86_400  # a deadline after that is none: the answer is due before
_GRPC = re.compile(rb"application/grpc([+;].*)?")
_MESSAGE = "".join(map(chr, range(32, 127))).replace("%", "")  # of a status, as it is
_TOLD = (REQUEST_ID, b"retry-after")  # headers that a client gets, as metadata after the answer
_HEAD = (
    HeaderTuple(b":status", b"200"),
    HeaderTuple(b"content-type", b"application/grpc"),
    HeaderTuple(b"grpc-accept-encoding", b"identity, gzip, deflate"),
)
_NO_CALL = 415  # told to what is no gRPC, as a status of HTTP
_LATE = "the deadline of the call has passed"
_log = logging.getLogger(__name__)

Lines = list[tuple[bytes, bytes]]
Headers = dict[bytes, bytes]


class Code(IntEnum):
    """Codes of gRPC that calls are answered with."""

    OK = 0
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


_CODES: dict[int, Code] = {
    HTTPStatus.OK: Code.OK,
    HTTPStatus.UNAUTHORIZED: Code.UNAUTHENTICATED,
    HTTPStatus.FORBIDDEN: Code.PERMISSION_DENIED,
    HTTPStatus.NOT_FOUND: Code.NOT_FOUND,
    HTTPStatus.REQUEST_TIMEOUT: Code.DEADLINE_EXCEEDED,
    HTTPStatus.CONFLICT: Code.FAILED_PRECONDITION,
    HTTPStatus.TOO_MANY_REQUESTS: Code.RESOURCE_EXHAUSTED,
    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE: Code.RESOURCE_EXHAUSTED,
    HTTPStatus.INTERNAL_SERVER_ERROR: Code.INTERNAL,
    HTTPStatus.NOT_IMPLEMENTED: Code.UNIMPLEMENTED,
    HTTPStatus.SERVICE_UNAVAILABLE: Code.UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT: Code.DEADLINE_EXCEEDED,
}  # of any other refusal: INVALID_ARGUMENT
_LARGER = "message_too_large"  # the code of a refusal, whose code of gRPC is RESOURCE_EXHAUSTED


class Refusing:
    """ASGI middleware that refuses what :class:`Calls` found to be no call, and counts it.

    Args:
        app: answers the others.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a call, or passes it on."""
        refusal = scope["refusal"]
        if refusal is None:
            await self._app(scope, receive, send)
        else:
            count(OTHER, refusal.status)
            await refusal.response(scope)(scope, receive, send)


class Calls:
    """Passes calls of ``paths`` on to ``app``.

    Beside what ASGI says, the scope of a call has an entry ``refusal``, of what is no call (else
    None), and ``check_wanted``: a function that raises Refusal if the client has given the call up,
    or an answer of so many bytes cannot wait for it.

    Args:
        app: answers them.
        paths: those of methods.
        most_bytes: of a message.
        server: address and port that the calls come to.
    """

    def __init__(
        self,
        app: ASGIApp,
        paths: Iterable[str],
        most_bytes: int,
        server: tuple[str, int],
    ) -> None:
        self._app = app
        self._paths = {path.encode() for path in paths}
        self._most_bytes = most_bytes
        self._server = server
        self._tasks: set[asyncio.Task[None]] = set()
        self._tidying: asyncio.TimerHandle | None = None
        self._again = False

    def begin(self, stream: Stream, has_room: bool) -> None:
        """Begins the call that came by ``stream``, or refuses it, as without room for it.

        The application is told of those that are refused, for its log.
        """
        headers = dict(stream.headers)
        refusal = self._refusal(stream, headers, has_room=has_room)
        task = asyncio.ensure_future(self._answer(stream, headers, refusal))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def ended(self) -> None:
        """Waits until the application has answered all calls."""
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._tidying is not None:
            self._tidying.cancel()

    def _refusal(self, stream: Stream, headers: Headers, *, has_room: bool) -> Refusal | None:
        path = headers.get(b":path", b"")  # CONNECT has none
        coding = headers.get(b"grpc-encoding", b"identity")
        if headers.get(b":method") != b"POST" or not _is_grpc(headers):
            return Refusal(_NO_CALL, "no_call", "send POST, with the content type application/grpc")
        if path not in self._paths:
            return Refusal(501, "unknown_method", f"no method {path[:80].decode('latin-1')}")
        if coding != b"identity" and coding not in _CODINGS:
            detail = "grpc-encoding can be identity, gzip or deflate"
            return Refusal(501, "unsupported_coding", detail)
        if _seconds(headers) is None:
            detail = "grpc-timeout is no number of a unit, like 10S"
            return Refusal(400, "bad_timeout", detail)
        if len(stream.headers) > HEAD_LINES or stream.size > MOST_HEADERS:
            detail = f"the head of a call may have {HEAD_LINES} lines and {MOST_HEADERS} bytes"
            return Refusal(431, "head_too_large", detail)
        if not has_room:
            return _busy("too many calls are open, and several of them yours")
        return None

    async def _answer(self, stream: Stream, headers: Headers, refusal: Refusal | None) -> None:
        status, body, is_late = 500, b"", False
        told: Lines = []

        async def send(message: Message) -> None:
            nonlocal status, body
            if message["type"] == "http.response.start":
                status = message["status"]
                told.extend((name, value) for name, value in message["headers"] if name in _TOLD)
            else:
                body += message["body"]

        def give_up() -> None:
            nonlocal is_late
            is_late = True
            _refuse(stream, Code.DEADLINE_EXCEEDED, _LATE)

        def check_wanted(size: int) -> None:
            if is_late:
                raise Refusal(504, "too_late", _LATE)
            if stream.gone.is_set():
                raise Refusal(400, "incomplete", "the client gave the call up")
            if size and not stream.keep(size):
                raise _busy("answers that were not taken hold too much memory")

        ours = {"refusal": refusal, "check_wanted": check_wanted}
        scope = {**self._scope(stream, headers), **ours}
        bits = _CODINGS.get(headers.get(b"grpc-encoding", b""))
        seconds = _seconds(headers)
        content = _Content(stream, self._most_bytes, bits)
        timer = asyncio.get_running_loop().call_later(
            _LONGEST_S if seconds is None else seconds, give_up
        )
        try:
            await self._app(scope, content.receive, send)
        except Exception:
            _log.exception("%s failed", scope["path"])
        finally:
            timer.cancel()
            if content.size > _LARGE:
                self._tidy_soon()
        if status == HTTPStatus.OK:
            prefix = b"\0" + len(body).to_bytes(4, "big")
            stream.answer(_HEAD, prefix + body, _tail(Code.OK, "", told))
        elif refusal is not None and status == _NO_CALL:
            stream.refuse([HeaderTuple(b":status", b"%d" % status)])
        else:
            said = json.loads(body) if body else {"detail": "it failed"}
            code = _CODES.get(status, Code.INVALID_ARGUMENT)
            if said.get("error") == _LARGER:
                code = Code.RESOURCE_EXHAUSTED
            _refuse(stream, code, said["detail"], told)

    def _scope(self, stream: Stream, headers: Headers) -> Scope:
        path = headers.get(b":path", b"")
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "2",
            "method": headers.get(b":method", b"").decode("latin-1"),
            "scheme": "http",
            "path": path.decode("latin-1"),
            "raw_path": path,
            "root_path": "",
            "query_string": b"",
            "headers": [line for line in stream.headers if line[0][:1] != b":"],
            "client": stream.client,
            "server": self._server,
        }

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


class _Content:
    """The message of a call, as the body of a request.

    Attributes:
        size: bytes that were passed on.
    """

    def __init__(self, stream: Stream, most: int, bits: int | None) -> None:
        self._stream = stream
        self._most = most
        self._bits = bits
        self._has_begun = False
        self._inflater: Any = None
        self._all = self._left = 0  # bytes of the message, and of it those that were not read
        self._packed = b""  # read, and not inflated
        self._is_over = False
        self.size = 0

    async def receive(self) -> Message:
        """Returns the next piece, or that the client is gone.

        Raises:
            Refusal: the message is too large, not whole, or no gzip.
        """
        piece: bytes | None = None
        if self._is_over:
            await self._stream.gone.wait()
        else:
            piece = await self._next()
        if piece is None:
            return {"type": "http.disconnect"}
        self.size += len(piece)
        if self.size > self._most:
            raise _larger(self.size, self._most)
        return {"type": "http.request", "body": piece, "more_body": not self._is_over}

    async def _next(self) -> bytes | None:
        """Returns the next piece, which may be empty; None if the client is gone."""
        if not self._has_begun:
            head = await self._read(_PREFIX)
            if head is None:
                return None
            self._begin(head[0], int.from_bytes(head[1:], "big"))
        piece: bytes | None = self._packed
        if not piece:
            wanted = min(self._left, _PIECE)
            piece = await self._read(wanted)
            if piece is None:
                return None
            self._left -= wanted
        if self._inflater is not None:
            piece = self._inflate(piece)
            await asyncio.sleep(0)  # a piece may inflate to a thousand times its size
        self._is_over = not self._left and not self._packed
        return piece

    def _begin(self, flag: int, size: int) -> None:
        self._has_begun = True
        self._all = self._left = size
        if size > self._most:
            raise _larger(size, self._most)
        if flag > 1:
            detail = f"the byte before the message's length is {flag}: it can be 0, or 1 for gzip"
            raise Refusal(400, "bad_message", detail)
        if flag and self._bits is None:
            raise Refusal(400, "bad_gzip", "the message is compressed, and grpc-encoding says no")
        if flag and self._bits is not None:
            self._inflater = zlib.decompressobj(self._bits)

    async def _read(self, count: int) -> bytes | None:
        """Returns the next ``count`` bytes; None if the client is gone."""
        data = await self._stream.read(count)
        if len(data) == count:
            return data
        if self._stream.gone.is_set():
            return None
        whole = f"{_PREFIX + self._all if self._has_begun else _PREFIX} bytes"
        raise Refusal(400, "incomplete", f"the call ended before the {whole} of its message")

    def _inflate(self, packed: bytes) -> bytes:
        try:
            piece: bytes = self._inflater.decompress(packed, _LARGE)
        except zlib.error as error:
            detail = f"the message is not compressed right: {error}"
            raise Refusal(400, "bad_gzip", detail) from None
        self._packed = self._inflater.unconsumed_tail
        used = self._all - self._left - len(self._packed)
        check_ratio(self.size + len(piece), used, "the message", "send it without compression")
        is_over = not self._left and not self._packed
        if self._inflater.unused_data or is_over != self._inflater.eof:
            raise Refusal(400, "bad_gzip", "the compressed message does not end where it should")
        return piece


def _larger(size: int, most: int) -> Refusal:
    detail = f"the message is larger than max ({size} vs. {most} bytes)"
    return Refusal(413, _LARGER, detail)


def _busy(reason: str) -> Refusal:
    detail = f"{reason}; try again in {BUSY_S} s"
    return Refusal(429, "busy", detail, {"retry-after": str(BUSY_S)})


def _seconds(headers: Headers) -> float | None:
    """Returns the deadline of a call; None for one that cannot be read."""
    found = _TIMEOUT.fullmatch(headers.get(b"grpc-timeout", b"%dS" % _LONGEST_S))
    return min(int(found[1]) * _UNITS[found[2]], _LONGEST_S) if found else None


def _is_grpc(headers: Headers) -> bool:
    return _GRPC.fullmatch(headers.get(b"content-type", b"")) is not None


def _refuse(stream: Stream, code: Code, detail: str, told: Lines | None = None) -> None:
    """Answers with a code alone: a message before it would wait to be taken."""
    stream.refuse([*_HEAD, *_tail(code, detail, told or [])])


def _tail(code: Code, detail: str, told: Lines) -> list[HeaderTuple]:
    """Returns what comes after a message. No table keeps it: of each call it is another."""
    lines = [(b"grpc-status", b"%d" % code), *told]
    if detail:
        lines.append((b"grpc-message", quote(detail, safe=_MESSAGE).encode()))
    return [NeverIndexedHeaderTuple(*line) for line in lines]
