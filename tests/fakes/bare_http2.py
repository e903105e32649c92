"""A client of HTTP/2 that sends frames by hand, and may break the rules.

https://www.rfc-editor.org/rfc/rfc9113 says what is in a frame.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from hpack import Decoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 2, 3, 4, 6, 7
WINDOW_UPDATE, CONTINUATION = 8, 9
_WINDOW = 4  # number of the setting: how many bytes may be sent before they are taken
END, HEADERS_END = 1, 4  # flags of the last frame of a stream, and of its headers


def frame(kind: int, body: bytes = b"", stream: int = 0, flags: int = 0) -> bytes:
    """Returns the bytes of a frame."""
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def literal(name: str, value: str, first: int = 0) -> bytes:
    """Returns a header as it is; ``first`` is 64 to have the table keep it."""
    return bytes([first]) + _sized(name) + _sized(value)


def head(path: str, **lines: str) -> bytes:
    """Returns the headers of a call, and further ``lines``, whose names have no hyphen here."""
    known = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x"}
    known |= {"te": "trailers", "content-type": "application/grpc"}
    known |= {name.replace("_", "-"): value for name, value in lines.items()}
    return b"".join(literal(name, value) for name, value in known.items())


def packed(message: bytes, flag: int = 1) -> bytes:
    """Returns a message as it is sent, with the flag that it is compressed, or 0."""
    return struct.pack(">BI", flag, len(message)) + message


def _sized(text: str) -> bytes:
    """Returns text after its length, seven bits a byte beyond 126."""
    size, rest = min(len(text), 127), len(text) - 127
    sizes = [size]
    while rest >= 0:
        sizes.append(rest & 127 | (rest > 127) << 7)
        rest = (rest >> 7) or -1
    return bytes(sizes) + text.encode()


class Bare:
    """A connection that lets the server send it answers of ``window`` bytes, none at all with 0."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._stream = -1
        self._decoder = Decoder()

    def call(self, path: str, message: bytes = b"", **lines: str) -> int:
        """Calls a method with one message; returns the number of the stream."""
        return self.send(head(path, **lines), packed(message, 0))

    def send(self, block: bytes, data: bytes | None) -> int:
        """Sends headers, and data with the end; without data neither. Returns the stream."""
        self._stream += 2
        self.writer.write(frame(HEADERS, block, self._stream, flags=HEADERS_END))
        if data is not None:
            self.writer.write(frame(DATA, data, self._stream, flags=END))
        return self._stream

    async def answer(self, stream: int) -> dict[str, str]:
        """Returns all headers that a stream is answered with, once it ends.

        Streams must be asked for in the order in which they are answered.
        """
        found: dict[str, str] = {}
        while True:
            kind, flags, where, body = await self._next()
            if kind == HEADERS:
                lines = dict(self._decoder.decode(body))
                found |= lines if where == stream else {}
            code = int.from_bytes(body, "big")
            assert (kind, where) != (RST_STREAM, stream), f"the stream was reset: {code}"
            if where == stream and kind in (HEADERS, DATA) and flags & END:
                return found

    def skip(self, streams: int) -> None:
        """Leaves out the numbers of so many streams."""
        self._stream += 2 * streams

    def widen(self, stream: int, size: int) -> None:
        """Lets the server send so many bytes more."""
        self.writer.write(frame(WINDOW_UPDATE, struct.pack(">I", size), stream))

    async def why_ended(self) -> int:
        """Returns the code with which the server ends the connection."""
        while True:
            kind, _, _, body = await self._next()
            if kind == GOAWAY:
                return int.from_bytes(body[4:8], "big")

    async def next(self) -> tuple[int, int, int]:
        """Returns kind, flags and stream of the next frame.

        Raises:
            asyncio.IncompleteReadError: the server closed the connection.
        """
        kind, flags, stream, _ = await self._next()
        return kind, flags, stream

    async def _next(self) -> tuple[int, int, int, bytes]:
        head = await self._reader.readexactly(9)
        body = await self._reader.readexactly(int.from_bytes(head[:3], "big"))
        return head[3], head[4], int.from_bytes(head[5:], "big"), body

    async def wait_for(self, kind: int, stream: int = 0) -> None:
        """Returns once such a frame has come."""
        while True:
            found, _, where = await self.next()
            if (found, where) == (kind, stream):
                return

    async def wait_closed(self) -> None:
        """Returns once the server has closed the connection."""
        try:
            while True:
                await self.next()
        except (asyncio.IncompleteReadError, ConnectionError):
            return


@asynccontextmanager
async def connected(port: int, window: int = 65_535) -> AsyncGenerator[Bare, None]:
    """A context manager: a connection to that port of this machine."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(PREFACE + frame(SETTINGS, struct.pack(">HI", _WINDOW, window)))
        yield Bare(reader, writer)
    finally:
        writer.close()
