"""HTTP/2 connections with limits.

h2 takes the frames apart and keeps the state of the connection; what it holds of each is bounded by
the settings here, and by :mod:`serving.frames`. The terms are those of
https://www.rfc-editor.org/rfc/rfc9113.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hyperframe.frame import Frame, GoAwayFrame

from serving.frames import MOST_HEADERS, Frames, TooMuch, Turns
from serving.protocol import LAST_CALL_S
from serving.shares import Common
from serving.streams import Stream, unless_ended

_STREAMS = 100  # requests at once of a connection: what clients assume before they are told
_READ = 1 << 16  # bytes at once
_WINDOW, _ALL_WINDOWS = 1 << 18, 1 << 20  # bytes sent, but not read, of a request, and of all
_KINDS = 50  # of settings that a client may send, in several frames
_DRAIN_S = 1.0  # for a client to close, after the last that it is sent
_LAST = 2**31 - 1  # the highest number of a stream
_NONE = memoryview(b"")
_GOAWAY = bytes([0, 0, 8, 7, 0, 0, 0, 0, 0])  # the head of that frame, which has eight bytes
_CONFIG = H2Configuration(
    client_side=False,
    header_encoding=None,
    validate_outbound_headers=False,
    normalize_outbound_headers=False,
)


class _State(H2Connection):
    DEFAULT_MAX_HEADER_LIST_SIZE = 2 * MOST_HEADERS  # whatever clients are told
    MAX_CLOSED_STREAMS = _STREAMS  # of which it is remembered how they ended

    def _receive_goaway_frame(self, frame: GoAwayFrame) -> tuple[list[Frame], list[Event]]:
        """Only tells of it: h2 would take and send no more frames, also of requests that began."""
        told = ConnectionTerminated()
        told.error_code = frame.error_code
        return [], [told]


@dataclass
class Shared:
    """What the connections of a server share.

    Attributes:
        begin: called with each request, and whether there is room for it.
        most: limit of open connections.
        calls: requests that are not answered, or not completely.
        untaken: bytes of answers that are not completely taken.
        head_s: seconds that a connection may have no request, or take nothing of its answers.
        age_s: seconds after which a connection gets no more requests.
        grace_s: seconds that requests have to end after that.
        connections: those that are open; first those that had no request for longest.
        is_ending: whether connections get no more requests than those on their way.
        turns: in which they take apart what was read.
        buffer: what each reads into.
    """

    begin: Callable[[Stream, bool], None]
    most: int
    calls: Common
    untaken: Common
    head_s: float
    age_s: float
    grace_s: float
    connections: dict[Connection, None] = field(default_factory=dict)
    is_ending: bool = False
    turns: Turns = field(default_factory=Turns)
    buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(_READ)))

    def make_room(self) -> bool:
        """Returns whether there is room for a connection.

        If all are taken, one without a request is closed for it, or one that waits for its client.
        """
        if len(self.connections) < self.most:
            return True
        waiting = [each for each in self.connections if each.waits]
        first = next((each for each in waiting if each.is_idle), waiting[0] if waiting else None)
        if first is not None:
            first.make_way()
        return first is not None

    def moved(self, connection: Connection) -> None:
        """Takes ``connection`` for the last that did something."""
        if connection in self.connections:
            del self.connections[connection]
            self.connections[connection] = None


class Connection(asyncio.BufferedProtocol):
    """One connection."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._loop = asyncio.get_running_loop()
        self._transport: Any = None
        self._data = _NONE  # bytes that were read, and not taken apart
        self._is_paused = False
        self._frames = Frames()
        self._streams: dict[int, Stream] = {}  # requests that are not answered, or not completely
        self._timers: list[asyncio.TimerHandle] = []
        self._idle: asyncio.TimerHandle | None = None
        self._kept = 0  # bytes of answers that are not taken
        self._untaken: dict[int, int] = {}  # bytes of each answer, when they were looked at
        self._is_leaving = self._takes_no_more = self._ignores = False
        self.is_full = False  # whether the client does not take what it is sent
        self.client: tuple[Any, ...] | None = None
        self.state: H2Connection = _State(_CONFIG)
        values = {
            SettingCodes.MAX_CONCURRENT_STREAMS: _STREAMS,
            SettingCodes.MAX_HEADER_LIST_SIZE: MOST_HEADERS,
            SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW,
        }
        self.state.local_settings = Settings(client=False, initial_values=values)

    # What the transport calls ---------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Enforces the connection limit, and starts the timers."""
        self._transport = transport
        address = transport.get_extra_info("peername")
        self.client = tuple(address[:2]) if address else None  # it may have left
        if not self._shared.make_room():
            self._transport.abort()
            return
        self._shared.connections[self] = None
        self.state.initiate_connection()
        self.state.increment_flow_control_window(_ALL_WINDOWS - (1 << 16) + 1)
        self.flush()
        self._later(self._shared.age_s, self.leave)
        self._later(self._shared.head_s, self._look)
        self._start_idling()
        if self._shared.is_ending:
            self.leave()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forgets the connection, and tells its requests."""
        self._shared.connections.pop(self, None)
        self._ignores = True
        self._data = _NONE
        self._stop_idling()
        for timer in self._timers:
            timer.cancel()
        self._abandon()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Returns where the next bytes go, until :meth:`buffer_updated` copies them."""
        return self._shared.buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Waits with the next bytes for its turn, and reads no more until then."""
        if self._ignores:
            return
        self._data = memoryview(bytes(self._shared.buffer[:nbytes]))
        self._shared.turns.add(self)
        self._read_or_pause()

    def pause_writing(self) -> None:
        """Reads no more of a client that does not read."""
        self.is_full = True
        self._read_or_pause()

    def resume_writing(self) -> None:
        """Reads again, and sends what waits."""
        self.is_full = False
        self._read_or_pause()
        self._send_more()

    # What the server, its turns and requests call -------------------------------------------------

    def take(self, most: int) -> tuple[int, bool]:
        """Takes up to ``most`` frames apart; what breaks the rules ends the connection."""
        frames = 0
        if self._ignores:  # it ended before its turn
            return 0, False
        try:
            size, frames = self._frames.count(self._data, most)
            data, self._data = self._data[:size], self._data[size:]
            for event in self.state.receive_data(data):
                if not self._ignores:
                    self._handle(event)
            if len(self.state.remote_settings) > _KINDS:
                raise TooMuch("settings")
        except TooMuch:
            with unless_ended:
                self.state.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            self._end()
        except ProtocolError:  # h2 has said so
            self._end()
        except BaseException:  # a fault of ours, or of h2: asyncio does the same
            self.abort()
            raise
        self.flush()
        self._read_or_pause()
        return frames, len(self._data) > 0

    def leave(self) -> None:
        """Says that the connection ends; closes it once all requests are answered.

        Requests may be on their way. So those of the next half second are answered, too; a client
        that sends one later knows by the number of the last one that it was not begun.
        """
        if self._is_leaving or self._ignores:
            return
        self._is_leaving = True
        self._stop_idling()
        self._say_last(_LAST)
        self._later(LAST_CALL_S, self._take_no_more)
        self._later(LAST_CALL_S + self._shared.grace_s, self.abort)

    @property
    def is_idle(self) -> bool:
        """Returns whether it has no request."""
        return not self._streams

    @property
    def waits(self) -> bool:
        """Returns whether nothing can be done until its client sends, or takes, something."""
        return all(stream.waits for stream in self._streams.values())

    def make_way(self) -> None:
        """Closes the connection for another; its client can send its requests again."""
        del self._shared.connections[self]
        if not self._ignores:
            self._say_last(self.state.highest_inbound_stream_id)
        self._ignores = True  # a request that came after that one is sent again
        self.abort()

    def abort(self) -> None:
        """Closes the connection at once."""
        self._transport.abort()

    def forget(self, stream: Stream) -> None:
        """Ends a request that is answered, or needs no answer."""
        del self._streams[stream.number]
        self._shared.calls.taken -= 1
        self._shared.untaken.taken -= stream.kept
        self._kept -= stream.kept
        if stream.is_answered:
            self._frames.answered()
        if self._takes_no_more:
            self._end_if_done()
        elif not (self._streams or self._is_leaving or self._ignores):
            self._start_idling()

    def keep(self, size: int) -> bool:
        """Returns whether there is room for so many bytes of an answer, until it is taken."""
        has_room = self._shared.untaken.has_room(self._kept, size)
        if has_room:
            self._kept += size
            self._shared.untaken.taken += size
        return has_room

    def sent(self) -> None:
        """Counts a frame of an answer."""
        self._frames.sent()

    def flush(self) -> None:
        """Sends what h2 has to send."""
        self._write(self.state.data_to_send())

    # Ours -----------------------------------------------------------------------------------------

    def _handle(self, event: Event) -> None:
        if isinstance(event, RequestReceived):
            self._begin(event)
        elif isinstance(event, DataReceived):
            stream = self._streams.get(event.stream_id)
            size = event.flow_controlled_length
            if stream is not None:
                stream.feed(event.data)
                size -= len(event.data)  # of padding; the data are acknowledged once they are read
            if size:
                self.state.acknowledge_received_data(size, event.stream_id)
        elif isinstance(event, StreamEnded):
            if (stream := self._streams.get(event.stream_id)) is not None:
                stream.end()
        elif isinstance(event, StreamReset):
            if (stream := self._streams.get(event.stream_id)) is not None:
                stream.abandon()
        elif isinstance(event, (WindowUpdated, RemoteSettingsChanged)):
            self._send_more()
        elif isinstance(event, ConnectionTerminated):
            self._let_leave(event.error_code)

    def _begin(self, event: RequestReceived) -> None:
        size = sum(len(name) + len(value) + 32 for name, value in event.headers)
        self._frames.head(size)
        if self._takes_no_more:
            with unless_ended:
                self.state.reset_stream(event.stream_id, ErrorCodes.REFUSED_STREAM)
            return
        self._stop_idling()
        self._shared.moved(self)
        has_room = self._shared.calls.has_room(len(self._streams))
        self._shared.calls.taken += 1
        stream = Stream(self, event.stream_id, event.headers, size)
        self._streams[event.stream_id] = stream
        self._shared.begin(stream, has_room)

    def _let_leave(self, code: int | None) -> None:
        """Answers what the client has begun, unless it leaves for an error."""
        if code != ErrorCodes.NO_ERROR:
            self._end()
        else:
            self.leave()
            self._take_no_more()

    def _send_more(self) -> None:
        for stream in list(self._streams.values()):
            stream.send_more()

    def _say_last(self, number: int) -> None:
        """Says which is the last request that is answered; h2 would take no more frames then."""
        self.flush()
        self._write(_GOAWAY + struct.pack(">II", number, ErrorCodes.NO_ERROR))

    def _write(self, data: bytes) -> None:
        if data and not (self._ignores or self._transport.is_closing()):
            self._transport.write(data)

    def _take_no_more(self) -> None:
        if self._takes_no_more:
            return
        self._takes_no_more = True
        self._say_last(self.state.highest_inbound_stream_id)
        self._end_if_done()

    def _end_if_done(self) -> None:
        if not self._streams:
            self._end()

    def _end(self) -> None:
        """Sends the last, and waits for the client to close: with unread data it may lose that."""
        if self._ignores:
            return
        self.flush()
        self._ignores = True  # and sends no more
        self._data = _NONE
        self._stop_idling()
        self._abandon()
        if not self._transport.is_closing():
            self._transport.write_eof()
        self._later(_DRAIN_S, self.abort)

    def _abandon(self) -> None:
        for stream in list(self._streams.values()):
            stream.abandon()

    def _read_or_pause(self) -> None:
        pauses = self.is_full or len(self._data) > 0
        if pauses != self._is_paused and not self._transport.is_closing():
            self._is_paused = pauses
            (self._transport.pause_reading if pauses else self._transport.resume_reading)()

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        self._timers.append(self._loop.call_later(seconds, act))

    def _look(self) -> None:
        """Closes the connection if its client took nothing of any answer since the last time."""
        before = self._untaken
        self._untaken = {each.number: each.untaken for each in self._streams.values()}
        self._untaken = {number: size for number, size in self._untaken.items() if size}
        if before and before.items() <= self._untaken.items():
            self.abort()
        self._later(self._shared.head_s, self._look)

    def _start_idling(self) -> None:
        self._shared.moved(self)
        self._idle = self._loop.call_later(self._shared.head_s, self.leave)

    def _stop_idling(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
