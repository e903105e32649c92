"""Frames of HTTP/2: how they are counted, and that connections take theirs in turns."""

from __future__ import annotations

import asyncio
import random

import pytest
from bare_http2 import (
    CONTINUATION,
    DATA,
    HEADERS,
    HEADERS_END,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)

from serving.frames import Frames, TooMuch, Turns

ALL = 1_000_000


def count(sent: bytes, sizes: list[int] | None = None) -> int:
    """Returns how many frames are in ``sent``, which comes in parts of ``sizes``, then the rest."""
    frames, at, found = Frames(), 0, 0
    for size in [*(sizes or []), len(sent)]:
        part = memoryview(sent[at : at + size])
        taken, counted = frames.count(part, ALL)
        assert taken == len(part)
        at, found = at + size, found + counted
    return found


def test_frames_are_counted_however_their_bytes_come() -> None:
    dice = random.Random(0)
    kinds = [HEADERS, DATA, PING, WINDOW_UPDATE, 200]
    sizes = [dice.choice([0, 1, 8, 100, 70_000 * (kind == DATA)]) for kind in kinds * 8]
    sent = PREFACE + b"".join(
        frame(kind, bytes(size)) for kind, size in zip(kinds * 8, sizes, strict=True)
    )
    assert count(sent) == 40
    for _ in range(50):
        parts = [dice.choice([0, 1, 2, 9, 10, 500, 80_000]) for _ in range(60)]
        assert count(sent, parts) == 40
    assert count(sent, [1] * 500) == 40


def test_no_more_frames_are_taken_than_wanted() -> None:
    frames = Frames()
    sent = memoryview(PREFACE + frame(PING, bytes(8)) * 5)
    first = len(PREFACE) + 2 * 17
    assert frames.count(sent[:30], 2) == (30, 1 - 1)  # six bytes of its head
    assert frames.count(sent[30:], 2) == (first - 30, 2)
    assert frames.count(sent[first:], 2) == (34, 2)
    assert frames.count(sent[first + 34 :], 2) == (17, 1)


@pytest.mark.parametrize(
    "sent",
    [
        frame(PING, bytes(8)) * 1001,
        frame(RST_STREAM, bytes(4), 1) * 1001,
        frame(DATA, b"", 1) * 1001,
        frame(DATA, b"x", 1) * 1001,
        frame(CONTINUATION, b"", 1) * 1001,
        frame(HEADERS, bytes(16_000), 1) + frame(CONTINUATION, bytes(16_000), 1) * 2,
        frame(HEADERS, bytes(33_000), 1),
        frame(SETTINGS, bytes(306)),
    ],
    ids=[
        *("pings", "resets", "empty data", "tiny data", "empty heads", "long head", "large head"),
        "many settings",
    ],
)
def test_what_no_client_needs_is_too_much(sent: bytes) -> None:
    with pytest.raises(TooMuch):
        count(PREFACE + sent)


def test_calls_make_room_for_further_frames() -> None:
    frames = Frames(now=lambda: 0)
    frames.count(memoryview(PREFACE), ALL)
    for _ in range(1000):
        frames.count(memoryview(frame(HEADERS, b"", 1, HEADERS_END) + frame(PING) * 10), ALL)
        frames.answered()
    frames.count(memoryview(frame(PING) * 1000), ALL)
    with pytest.raises(TooMuch):
        frames.count(memoryview(frame(PING)), ALL)


def test_time_makes_room_for_further_frames() -> None:
    time = 0.0
    frames = Frames(now=lambda: time)
    frames.count(memoryview(PREFACE), ALL)
    given_up = frame(HEADERS, b"", 1, HEADERS_END) + frame(WINDOW_UPDATE) + frame(PING)
    for _ in range(1300):
        time += 0.006
        frames.count(memoryview(given_up + frame(RST_STREAM, bytes(4), 1)), ALL)
    time += 3600
    frames.count(memoryview(frame(PING) * 1000), ALL)
    with pytest.raises(TooMuch):
        frames.count(memoryview(frame(PING)), ALL)


def test_an_answer_makes_room_for_the_frames_that_take_it() -> None:
    frames = Frames(now=lambda: 0)
    frames.count(memoryview(PREFACE), ALL)
    for _ in range(2000):
        frames.sent()
    frames.answered()
    frames.count(memoryview(frame(WINDOW_UPDATE) * 5000), ALL)
    with pytest.raises(TooMuch):
        frames.count(memoryview(frame(WINDOW_UPDATE)), ALL)


def test_a_large_head_counts_as_many_frames() -> None:
    frames = Frames()
    for _ in range(31):
        frames.head(32_768)
    with pytest.raises(TooMuch):
        frames.head(32_768)


class Many:
    """A connection that has so many frames."""

    def __init__(self, count: int, taken: list[Many | None]) -> None:
        self.count = count
        self.taken = taken

    def take(self, most: int) -> tuple[int, bool]:
        self.taken.append(self)
        took = min(most, self.count)
        self.count -= took
        return took, self.count > 0


def test_connections_take_turns_among_themselves_and_with_others() -> None:
    async def run() -> list[Many | None]:
        taken: list[Many | None] = []
        turns = Turns()
        first, second = Many(20, taken), Many(10, taken)
        turns.add(first)
        turns.add(second)
        while first.count or second.count:
            taken.append(None)  # something else
            await asyncio.sleep(0)
        names = {first: 1, second: 2, None: 0}
        return [names[each] for each in taken]  # type: ignore[misc]

    # Of 8 frames in a turn, the second has the rest of the one in which the first ends.
    assert asyncio.run(run()) == [1, 0, 1, 0, 2, 0, 1, 2]
