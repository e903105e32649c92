"""Connections of HTTP/2 that mean harm: heads that swell, frames without end, broken rules."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from contextlib import suppress
from itertools import count

from bare_http2 import (
    CONTINUATION,
    DATA,
    END,
    GOAWAY,
    HEADERS,
    HEADERS_END,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    head,
    literal,
)
from other_routes import TOKEN

from serving.grpc_messages import SERVICE

BASE = head(f"/{SERVICE}/ServerLive")
KNOWN = head(f"/{SERVICE}/ModelInfer", authorization=f"Bearer {TOKEN}")
_KEPT = literal("x-a", "v" * 4000, 64)  # the table keeps it, as entry 62
_WHOLE = HEADERS_END | END
_CONNECTIONS, _FRAMES = 30, 150  # so many at once, and frames, or pairs of them, of each


def _numbers() -> Iterator[int]:
    return count(1, 2)


def _blocks(first: bytes, further: bytes, flags: int = _WHOLE) -> Iterator[bytes]:
    """Yields calls whose headers are ``further``, after one with ``first``."""
    numbers = _numbers()
    yield frame(HEADERS, first, next(numbers), flags)
    for number in numbers:
        yield frame(HEADERS, further, number, flags)


def _indexed(entry: int, times: int) -> bytes:
    return BASE + bytes([0x80 | entry]) * times


def _resets() -> Iterator[bytes]:
    cancel = struct.pack(">I", 8)
    for number in _numbers():
        yield frame(HEADERS, BASE, number, HEADERS_END) + frame(RST_STREAM, cancel, number)


def _continued(piece: bytes) -> Iterator[bytes]:
    yield frame(HEADERS, BASE, 1)
    while True:
        yield frame(CONTINUATION, piece, 1)


def _settings(many: int) -> Iterator[bytes]:
    """Yields settings of further kinds, so many at once."""
    for start in count(100, many):
        kinds = range(start % 60_000, start % 60_000 + many)
        yield frame(SETTINGS, b"".join(struct.pack(">HI", kind, 1) for kind in kinds))


def _uploads() -> Iterator[bytes]:
    """Yields calls whose message is promised, begun, and never sent."""
    for number in _numbers():
        yield frame(HEADERS, KNOWN, number, HEADERS_END)
        yield frame(DATA, b"\0\0\1\0\0" + bytes(10_000), number)


def _again(sent: bytes) -> Iterator[bytes]:
    while True:
        yield sent


def _after(first: bytes, rest: bytes) -> Iterator[bytes]:
    yield first
    yield from _again(rest)


_CALL = frame(HEADERS, BASE, 1, _WHOLE)
_LEAVE = frame(GOAWAY, struct.pack(">II", 0, 0))
FLOODS = {
    "repeated": lambda: _blocks(BASE + _KEPT, _indexed(62, 3000)),
    "just under the limit": lambda: _blocks(BASE + _KEPT, _indexed(62, 7)),
    "static": lambda: _blocks(BASE, _indexed(16, 16_000)),
    "many small": lambda: _blocks(BASE, BASE + literal("x", "") * 4000),
    "a hundred lines": lambda: _blocks(BASE, BASE + literal("x-y", "z" * 100) * 90),
    "huge": lambda: _blocks(BASE, BASE + literal("x", "v" * 15_000)),
    "not ended": lambda: _blocks(BASE, BASE, HEADERS_END),
    "continued": lambda: _continued(literal("x", "v" * 15_000)),
    "continued by nothing": lambda: _continued(b""),
    "reset": _resets,
    "ping": lambda: _again(frame(PING, bytes(8))),
    "settings": lambda: _settings(2700),
    "a few settings": lambda: _settings(20),
    "priority": lambda: _again(frame(PRIORITY, struct.pack(">IB", 3, 1), 1)),
    "window": lambda: _again(frame(WINDOW_UPDATE, struct.pack(">I", 0))),
    "wide window": lambda: _again(frame(WINDOW_UPDATE, struct.pack(">I", 2**31 - 1))),
    "half-open uploads": _uploads,
    "headers after the end": lambda: _after(_CALL, _CALL),
    "data after the end": lambda: _after(_CALL, frame(DATA, bytes(9000), 1)),
    "calls after goaway": lambda: _after(_LEAVE, _CALL),
    "unknown": lambda: _again(frame(200, bytes(16_000))),
    "overlong": lambda: _again(frame(DATA, bytes(1 << 20), 1)),
    "garbage": lambda: _again(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 50),
}


def flood(port: int, name: str, *, reads: bool = True) -> None:
    """Sends a kind of flood by many connections, until each is closed or has sent its frames.

    Those that do not read what comes back stop where the server reads no more of them.
    """

    async def send() -> None:
        with suppress(OSError, TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 10)
            drained = asyncio.ensure_future(_drain(reader) if reads else asyncio.sleep(0))
            try:
                writer.write(b"" if name == "garbage" else PREFACE + frame(SETTINGS))
                for _, part in zip(range(_FRAMES), FLOODS[name](), strict=False):
                    writer.write(part)
                    await asyncio.wait_for(writer.drain(), 0.5)
                    await asyncio.sleep(0)
            finally:
                writer.transport.abort()
                await drained

    async def send_all() -> None:
        await asyncio.gather(*(send() for _ in range(_CONNECTIONS)))

    asyncio.run(send_all())


async def _drain(reader: asyncio.StreamReader) -> None:
    with suppress(OSError):
        while await reader.read(1 << 16):
            pass
