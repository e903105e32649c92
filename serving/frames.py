"""Counts the frames of an HTTP/2 connection, to end one that means harm before it costs much.

h2 limits what a head inflates to. How many bytes of a head may wait for its end, and how many
frames may ask for nothing, is limited here: https://www.rfc-editor.org/rfc/rfc9113#section-10.5.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol

MOST_HEADERS = 1 << 14  # bytes of a head, as clients are told; of twice as many a connection ends
_PREFACE = 24  # bytes that a client sends before its first frame
_HEAD = 9  # bytes before the payload of a frame: its length in three, its type, flags and stream
_DATA, _HEADERS, _SETTINGS, _CONTINUATION = 0, 1, 4, 9  # types of frames
_SETTINGS_BYTES = 300  # of one frame: those of six bytes that there are, and some of other kinds
_SMALL = 64  # bytes of data that are not worth a frame, unless it is the only one of a call
_HEADERS_BYTES = 1024  # of a head take as long as a frame
_SPARE = 1000  # frames other than heads and data at once
_PER_CALL, _PER_S = 10, 500  # further ones for each answered call, and each second, up to that
_PER_SENT = 2  # further ones for each frame of an answer: they let us send more

_TURN = 8  # frames that are taken apart before it is the turn of others in the event loop


class TooMuch(Exception):
    """Frames that no client needs."""


class Frames:
    """Counts the frames of one connection.

    Args:
        now: returns the time in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._counted = now()  # when
        self._skip = _PREFACE  # bytes until the next head of a frame
        self._head = bytearray()
        self._block = 0  # bytes of headers that wait for their end
        self._spare: float = _SPARE

    def answered(self) -> None:
        """Allows for the frames of a further call."""
        self._refill(_PER_CALL)

    def sent(self) -> None:
        """Allows for the frames by which a client takes one of an answer.

        There is no limit: a client that takes much at once has as many of them afterwards.
        """
        self._spare += _PER_SENT

    def head(self, size: int) -> None:
        """Counts a head of so many bytes, as frames that take as long.

        Raises:
            TooMuch: as :meth:`count`.
        """
        self._spend(size // _HEADERS_BYTES)

    def count(self, data: memoryview, most: int) -> tuple[int, int]:
        """Counts up to ``most`` frames that begin in ``data``, which follows what was counted.

        Returns how many bytes these are, and how many frames.

        Raises:
            TooMuch: the headers of a request have twice :data:`MOST_HEADERS` as they came, there
                are settings that no client needs, or too many frames beside those of calls.
        """
        before, self._counted = self._counted, self._now()
        self._refill((self._counted - before) * _PER_S)
        at, end, frames = 0, len(data), 0
        while True:
            step = min(self._skip, end - at)
            self._skip -= step
            at += step
            if at == end or (frames == most and not self._head):
                return at, frames
            part = data[at : at + _HEAD - len(self._head)]
            self._head += part
            at += len(part)
            if len(self._head) == _HEAD:
                frames += 1
                self._skip = int.from_bytes(self._head[:3], "big")
                self._count(self._head[3], self._skip)
                self._head.clear()

    def _count(self, kind: int, size: int) -> None:
        if kind in (_HEADERS, _CONTINUATION):
            self._block = size + (self._block if kind == _CONTINUATION else 0)
            if self._block > 2 * MOST_HEADERS:
                raise TooMuch("headers")
        if kind == _SETTINGS and size > _SETTINGS_BYTES:
            raise TooMuch("settings")  # h2 keeps those that it does not know, too
        if kind not in (_HEADERS, _DATA) or (kind == _DATA and size < _SMALL):
            self._spend(1)

    def _refill(self, frames: float) -> None:
        self._spare = max(self._spare, min(self._spare + frames, _SPARE))

    def _spend(self, frames: int) -> None:
        self._spare -= frames
        if self._spare < 0:
            raise TooMuch("frames")


class Taker(Protocol):
    """A connection that has bytes to take apart."""

    def take(self, most: int) -> tuple[int, bool]:
        """Takes up to ``most`` frames; returns how many it took, and whether it has more."""


class Turns:
    """Has connections take their frames in turns, between which the event loop does other things.

    Or a few that send many small frames would hold up all requests, of HTTP as well.
    """

    def __init__(self) -> None:
        self._waiting: deque[Taker] = deque()
        self._is_over = False  # whether others come first

    def add(self, taker: Taker) -> None:
        """Has ``taker`` take its frames, at once if it is the first in this turn."""
        self._waiting.append(taker)
        if not self._is_over:
            self._take()

    def _take(self) -> None:
        self._is_over = True
        asyncio.get_running_loop().call_soon(self._next)
        room = _TURN
        while self._waiting and room:
            taker = self._waiting.popleft()
            taken, has_more = taker.take(room)
            room -= taken
            if has_more:
                self._waiting.append(taker)

    def _next(self) -> None:
        self._is_over = False
        if self._waiting:
            self._take()
