"""Reads frame sizes from an AV1 stream (https://aomediacodec.github.io/av1-spec, section 5)."""

from __future__ import annotations

from dataclasses import dataclass

_MAX_UNITS = 100_000
_SEQUENCE, _FRAME_HEADER, _FRAME = 1, 3, 6
_KEY, _SWITCH = 0, 3
_SELECT = 2  # the sequence header leaves the choice to the frame headers


@dataclass(slots=True)
class _Sequence:
    """The fields of a sequence header that are needed to read frame sizes."""

    pixels: int = 0
    most_pixels: int = 0  # most pixels that a frame size in a frame header can declare
    still: bool = False  # a still picture: its frame header has no size
    time_bits: int = 0  # bits of frame_presentation_time; 0 if absent
    id_bits: int = 0
    screen_content: int = 0
    integer_motion: int = 0


def coded_pixels(data: bytes) -> tuple[int, int]:
    """Returns the pixels of the largest frame in ``data``, and the sum over all frames.

    Raises:
        OSError: too many units, or a frame before any sequence header.
        IndexError: a truncated unit.
    """
    largest = total = at = 0
    sequence: _Sequence | None = None
    for _ in range(_MAX_UNITS):
        if at >= len(data):
            return largest, total
        head = data[at]
        kind = head >> 3 & 15
        at += 2 if head & 4 else 1
        size = len(data) - at
        if head & 2:
            size, at = _leb128(data, at)
        unit = data[at : at + size]
        at += size
        if kind == _SEQUENCE:
            sequence = _read_sequence(_Bits(unit))
            largest = max(largest, sequence.pixels)
        elif kind in (_FRAME_HEADER, _FRAME):
            if sequence is None:
                raise OSError("a frame before its sequence")
            pixels = _frame_pixels(_Bits(unit), sequence)
            largest = max(largest, pixels)
            total += pixels
    raise OSError(f"more than {_MAX_UNITS} units")


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """Returns the LEB128 number at offset ``at``, and the offset after it."""
    value = 0
    for index in range(8):
        value |= (data[at] & 0x7F) << 7 * index
        at += 1
        if data[at - 1] < 0x80:
            break
    return value, at


class _Bits:
    """Reads big-endian numbers of a given number of bits from ``data``, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __call__(self, bits: int) -> int:
        first, last = self._at // 8, (self._at + bits + 7) // 8
        if last > len(self._data):
            raise IndexError("cut short")
        self._at += bits
        value = int.from_bytes(self._data[first:last]) >> last * 8 - self._at
        return value & (1 << bits) - 1


def _read_sequence(take: _Bits) -> _Sequence:
    """Reads sequence_header_obu() up to the last field that is needed."""
    sequence = _Sequence()
    take(4)  # profile, still picture
    sequence.still = bool(take(1))
    if sequence.still:
        take(5)
    else:
        _skip_timing(take, sequence)
    width_bits, height_bits = take(4) + 1, take(4) + 1
    sequence.pixels = (take(width_bits) + 1) * (take(height_bits) + 1)
    sequence.most_pixels = 1 << width_bits + height_bits
    if sequence.still:
        return sequence
    if take(1):
        delta = take(4) + 2
        sequence.id_bits = delta + take(3) + 1
    take(7)  # superblocks, filters, compound prediction, warps
    if take(1):  # order hints
        take(2)
    sequence.screen_content = _SELECT if take(1) else take(1)
    sequence.integer_motion = _SELECT
    if sequence.screen_content and not take(1):
        sequence.integer_motion = take(1)
    return sequence


def _skip_timing(take: _Bits, sequence: _Sequence) -> None:
    delay_bits = 0
    if take(1):  # timing_info()
        take(64)
        even = take(1)
        if even:
            _skip_uvlc(take)
        if take(1):  # decoder_model_info()
            delay_bits = take(5) + 1
            take(32 + 5)
            time_bits = take(5) + 1
            sequence.time_bits = 0 if even else time_bits
    display_delay = take(1)
    for _ in range(take(5) + 1):  # operating points
        take(12)
        if take(5) > 7:
            take(1)
        if delay_bits and take(1):
            take(2 * delay_bits + 1)
        if display_delay and take(1):
            take(4)


def _skip_uvlc(take: _Bits) -> None:
    zeros = 0
    while zeros < 32 and not take(1):
        zeros += 1
    if zeros < 32:
        take(zeros)


def _frame_pixels(take: _Bits, sequence: _Sequence) -> int:
    """Returns an upper bound of a frame's pixels, from the start of uncompressed_header()."""
    if sequence.still:
        return sequence.pixels
    if take(1):  # show_existing_frame: it was decoded before
        return 0
    kind, shown = take(2), take(1)
    if shown:
        take(sequence.time_bits)
    else:
        take(1)
    if kind != _SWITCH and not (kind == _KEY and shown):
        take(1)
    take(1)
    screen_content = sequence.screen_content
    if screen_content == _SELECT:
        screen_content = take(1)
    if screen_content and sequence.integer_motion == _SELECT:
        take(1)
    take(sequence.id_bits)
    has_own_size = kind == _SWITCH or take(1)
    return max(sequence.pixels, sequence.most_pixels) if has_own_size else sequence.pixels
