"""A client of HTTP/2 that sends frames by hand, and may break the rules.

https://www.rfc-editor.org/rfc/rfc9113 says what is in a frame.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, SETTINGS, PING, GOAWAY = 0, 1, 4, 6, 7
_WINDOW = 4  # number of the setting: how many bytes may be sent before they are taken
_END, _ACK = 1, 1


def frame(kind: int, body: bytes = b"", stream: int = 0, flags: int = 0) -> bytes:
    """Returns the bytes of a frame."""
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


class Bare:
    """A connection that lets the server send it answers of ``window`` bytes, none at all with 0."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self._stream = -1

    def call(self, path: str, message: bytes = b"") -> int:
        """Calls a method with one message; returns the number of the stream."""
        self._stream += 2
        lines = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "x"}
        lines |= {"te": "trailers", "content-type": "application/grpc"}
        block = b"".join(
            bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()
            for name, value in lines.items()
        )
        self.writer.write(frame(HEADERS, block, self._stream, flags=4))
        data = struct.pack(">BI", 0, len(message)) + message
        self.writer.write(frame(DATA, data, self._stream, flags=_END))
        return self._stream

    async def next(self) -> tuple[int, int, int]:
        """Returns kind, flags and stream of the next frame.

        Raises:
            asyncio.IncompleteReadError: the server closed the connection.
        """
        head = await self._reader.readexactly(9)
        await self._reader.readexactly(int.from_bytes(head[:3], "big"))
        return head[3], head[4], int.from_bytes(head[5:], "big")

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
