from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.images.jpeg import is_cut_short, lost_rows, segments
from core.preprocess import ImageError, decode

HEIGHT = 480


def photo(mode: str = "RGB") -> Image.Image:
    y, x = np.mgrid[:HEIGHT, :320]
    noise = np.random.default_rng(0).integers(0, 30, (HEIGHT, 320))
    channels = [x * 0.6 + noise, y * 0.4 + noise, (x + y) * 0.25 + noise]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8)).convert(mode)


def encode(mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    photo(mode).save(file, "JPEG", **options)
    return file.getvalue()


KINDS: dict[str, dict[str, Any]] = {
    "colour": {},
    "progressive": {"progressive": True},
    "grey": {"mode": "L"},
    "CMYK": {"mode": "CMYK"},
    "restarts": {"restart_marker_rows": 1},
    "optimised": {"optimize": True, "subsampling": 0},
    "EXIF": {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0", "comment": b"\xff\xd9"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_end_marker_is_all_that_is_lost(kind: str) -> None:
    data = encode(**KINDS[kind])
    assert not is_cut_short(data)
    whole = np.asarray(decode(data))
    for cut in (1, 2):
        short = data[:-cut]
        assert is_cut_short(short)
        assert lost_rows(short) == (0, HEIGHT)
        with pytest.raises(ImageError, match="only its end marker is missing"):
            decode(short)
        assert (np.asarray(decode(short, truncated="accept")) == whole).all()
        small = decode(short, truncated="accept", least=40)
        assert (np.asarray(small) == np.asarray(decode(data, least=40))).all()


@pytest.mark.parametrize("kind", KINDS)
def test_last_rows_may_be_lost(kind: str) -> None:
    data = encode(**KINDS[kind])
    short = data[:-60]
    lost, height = lost_rows(short)
    assert height == HEIGHT
    assert lost is not None
    assert 0 < lost <= 30
    with pytest.raises(ImageError, match=f"its last {lost} of {HEIGHT} rows are missing"):
        decode(short)
    taken = np.asarray(decode(short, truncated="accept"))
    assert (taken[:-lost] == np.asarray(decode(data))[:-lost]).all()


@pytest.mark.parametrize("truncated", ["refuse", "accept"])
@pytest.mark.parametrize("kind", KINDS)
def test_more_than_that_is_refused(kind: str, truncated: Any) -> None:
    data = encode(**KINDS[kind])
    scan = next(segment.end for segment in segments(data) if segment.marker == 0xDA)
    for end in (scan + 1, scan + 1000, len(data) // 2, int(len(data) * 0.8)):
        with pytest.raises(ImageError, match=r"cut short: (its last \d+ of 480|more is missing)"):
            decode(data[:end], truncated=truncated)


def test_every_scan_must_be_there() -> None:
    data = encode(progressive=True)
    scans = [segment.at for segment in segments(data) if segment.marker == 0xDA]
    assert len(scans) > 5
    for at in scans[1:]:  # cut between two scans, so that nothing of one is missing
        assert lost_rows(data[:at]) == (None, HEIGHT)
        with pytest.raises(ImageError, match="more is missing than its last rows"):
            decode(data[:at], truncated="accept")


@pytest.mark.parametrize(
    "format", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "HEIF"]
)
def test_only_jpegs_are_taken_cut_short(format: str) -> None:
    file = io.BytesIO()
    photo().crop((0, 0, 64, 64)).save(file, format)
    data = file.getvalue()
    assert decode(data).size == (64, 64)
    with pytest.raises(ImageError):
        decode(data[: len(data) * 9 // 10], truncated="accept")


def test_a_header_alone_is_no_image() -> None:
    data = encode()
    for end in (3, 20, 200, next(s.at for s in segments(data) if s.marker == 0xDA)):
        with pytest.raises(ImageError):
            decode(data[:end], truncated="accept")
