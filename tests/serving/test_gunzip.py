from __future__ import annotations

import gzip
import random

import pytest

from serving.uploads import Gunzip, GzipError

DATA = random.Random(0).randbytes(5_000) * 3 + bytes(3_000_000)


def inflate(packed: bytes, size: int) -> bytes:
    gunzip, pieces = Gunzip(), []
    for start in range(0, len(packed), size):
        pieces += gunzip.feed(packed[start : start + size])
    gunzip.close()
    return b"".join(pieces)


@pytest.mark.parametrize("size", [1, 7, 1_000, 10_000_000])
def test_any_pieces_of_any_members(size: int) -> None:
    assert inflate(gzip.compress(DATA), size) == DATA
    members = [gzip.compress(DATA), gzip.compress(b""), gzip.compress(b"more")]
    assert inflate(b"".join(members), size) == DATA + b"more"


@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize("missing", [1, 8, 9, 100])
def test_what_is_cut_off(missing: int, size: int) -> None:
    with pytest.raises(GzipError, match="cut off"):
        inflate(gzip.compress(DATA)[:-missing], size)


def test_nothing_is_cut_off() -> None:
    with pytest.raises(GzipError, match="cut off"):
        Gunzip().close()


@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize("more", [b"x", b"\0" * 20, b"\x1f\x8b\x07"])
def test_what_follows_must_be_gzip(more: bytes, size: int) -> None:
    with pytest.raises(GzipError):
        inflate(gzip.compress(DATA) + more, size)


def test_a_wrong_checksum() -> None:
    packed = bytearray(gzip.compress(DATA))
    packed[-6] ^= 1
    with pytest.raises(GzipError, match="check"):
        inflate(bytes(packed), 1_000)


def test_members_without_end() -> None:
    with pytest.raises(GzipError, match="members"):
        inflate(gzip.compress(b"") * 200, 1_000)


def test_no_more_is_inflated_than_is_asked_for() -> None:
    pieces = Gunzip().feed(gzip.compress(bytes(10_000_000)))
    assert len(next(pieces)) == 1 << 20
