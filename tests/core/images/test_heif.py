from __future__ import annotations

import io
import struct
from typing import Any

import pytest
from PIL import Image

from core import preprocess  # noqa: F401 - it registers HEIC
from core.images.av1 import coded_pixels
from core.images.heif import MAX_ITEMS, decoding_cost


def encode(format: str, mode: str = "RGB", size: tuple[int, int] = (130, 70), **how: Any) -> bytes:
    file = io.BytesIO()
    image = Image.linear_gradient("L").resize(size).convert(mode)
    if mode == "RGBA":
        image.putalpha(Image.linear_gradient("L").resize(size))
    image.save(file, format, **how)
    return file.getvalue()


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def full(kind: bytes, *parts: bytes, version: int = 0) -> bytes:
    return box(kind, bytes([version, 0, 0, 0]), *parts)


def heif(kinds: dict[int, bytes], parts: dict[int, list[int]], side: int = 100) -> bytes:
    """Returns a file of items, all of ``side`` x ``side``, that are put together from others."""
    entries = [
        full(b"infe", struct.pack(">HH4s", n, 0, k), b"\0", version=2) for n, k in kinds.items()
    ]
    references = [
        box(b"dimg", struct.pack(f">HH{len(to)}H", number, len(to), *to))
        for number, to in parts.items()
    ]
    links = b"".join(struct.pack(">HBB", number, 1, 1) for number in kinds)
    meta = full(
        b"meta",
        full(b"iinf", struct.pack(">H", len(entries)), *entries),
        full(b"iref", *references),
        box(
            b"iprp",
            box(b"ipco", full(b"ispe", struct.pack(">II", side, side))),
            full(b"ipma", struct.pack(">I", len(kinds)), links),
        ),
    )
    return box(b"ftyp", b"heic", bytes(4)) + meta


@pytest.mark.parametrize(
    ("format", "how", "largest", "total"),
    [
        ("AVIF", {}, 130 * 70, 130 * 70),
        ("AVIF", {"mode": "L"}, 130 * 70, 130 * 70),
        ("AVIF", {"mode": "RGBA"}, 130 * 70, 2 * 130 * 70),
        ("HEIF", {"size": (128, 64)}, 128 * 64, 128 * 64),
        ("HEIF", {"size": (128, 64), "mode": "RGBA"}, 128 * 64, 2 * 128 * 64),
        ("HEIF", {"size": (128, 64), "tile_size": 64}, 128 * 64, 2 * 128 * 64),
    ],
)
def test_counts_the_pixels_that_are_coded(
    format: str, how: dict[str, Any], largest: int, total: int
) -> None:
    assert decoding_cost(encode(format, **how)) == (largest, total)


def test_a_track_counts_with_its_first_picture() -> None:
    frames = [Image.new("RGB", (130, 70), colour) for colour in ("red", "blue", "green")]
    data = encode("AVIF", save_all=True, append_images=frames)
    assert decoding_cost(data) == (130 * 70, 2 * 130 * 70)  # and the still picture beside it


def test_parts_count_as_often_as_they_are_used() -> None:
    kinds = {1: b"grid", 2: b"unci", 3: b"unci"}
    assert decoding_cost(heif(kinds, {1: [2, 3]})) == (10_000, 30_000)
    assert decoding_cost(heif(kinds, {1: [2] * 500})) == (10_000, 5_020_000)
    nested = {1: b"grid", 2: b"grid", 3: b"unci"}
    assert decoding_cost(heif(nested, {1: [2] * 100, 2: [3] * 100})) == (10_000, 101_010_000)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (heif({1: b"grid", 2: b"grid"}, {1: [2], 2: [1]}), "parts of each other"),
        (heif({1: b"grid"}, {1: [1]}), "parts of each other"),
        (heif(dict.fromkeys(range(1, MAX_ITEMS + 2), b"unci"), {}), f"more than {MAX_ITEMS} items"),
        (heif({1: b"av01"}, {}) * 9, "more than 8 tracks and boxes of items"),
        (heif({1: b"grid"}, dict.fromkeys(range(1, 4), [1] * 60_000)), "more than 100000 values"),
    ],
    ids=["circle", "itself", "items", "boxes", "references"],
)
def test_what_cannot_be_judged_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(OSError, match=reason):
        decoding_cost(data)


class Bits:
    """Writes numbers of so many bits."""

    def __init__(self) -> None:
        self.text = ""

    def put(self, *pairs: tuple[int, int]) -> Bits:
        for value, bits in pairs:
            self.text += format(value, f"0{bits}b") if bits else ""
        return self

    def unit(self, kind: int) -> bytes:
        text = self.text + "1"
        text += "0" * (-len(text) % 8)
        body = int(text, 2).to_bytes(len(text) // 8)
        return bytes([kind << 3 | 2, len(body)]) + body


def sequence(width: int, height: int, *, timing: bool = False) -> bytes:
    """Returns a sequence header that lets frames have sizes of their own, up to 2**16."""
    bits = Bits().put((0, 3), (0, 1), (0, 1), (timing, 1))
    if timing:
        bits.put((1, 32), (1, 32), (0, 1), (1, 1), (9, 5), (1, 32), (9, 5), (9, 5))
    bits.put((0, 1), (0, 5), (0, 12), (9, 5), (0, 1))
    if timing:
        bits.put((1, 1), (0, 10), (0, 10), (0, 1))
    bits.put((15, 4), (15, 4), (width - 1, 16), (height - 1, 16), (1, 1), (3, 4), (2, 3))
    bits.put((0, 3), (0, 4), (0, 1), (1, 1), (1, 1))
    return bits.unit(1)


def frame(*, own_size: bool, timing: bool = False, shown: bool = True) -> bytes:
    bits = Bits().put((0, 1), (0, 2), (shown, 1))
    if shown:
        bits.put((0, 10 if timing else 0))
    else:
        bits.put((1, 1), (0, 1))
    bits.put((0, 1), (1, 1), (0, 1), (0, 8), (own_size, 1), (0, 30))
    return bits.unit(6)


@pytest.mark.parametrize("timing", [False, True])
@pytest.mark.parametrize("shown", [False, True])
def test_every_frame_of_a_stream_is_counted(timing: bool, shown: bool) -> None:
    head = sequence(300, 200, timing=timing)
    own = frame(own_size=True, timing=timing, shown=shown)
    usual = frame(own_size=False, timing=timing, shown=shown)
    assert coded_pixels(head + usual) == (60_000, 60_000)
    assert coded_pixels(head + usual * 40) == (60_000, 2_400_000)
    assert coded_pixels(head + own) == (1 << 32, 1 << 32)
    assert coded_pixels(head + sequence(3000, 2000, timing=timing) + usual)[0] == 6_000_000
    assert coded_pixels(head + b"\x1a\x01\x80" + b"\x12\x00") == (60_000, 0)  # shows one again


def test_a_stream_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(OSError, match="a frame before its sequence"):
        coded_pixels(frame(own_size=False))
    with pytest.raises(OSError, match="more than 100000 units"):
        coded_pixels(b"\x12\x00" * 100_001)
    with pytest.raises(IndexError):
        coded_pixels(sequence(300, 200)[:6])
