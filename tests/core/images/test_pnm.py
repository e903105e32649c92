from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from core.preprocess import ImageError, TooManyPixelsError, decode


def values(data: bytes) -> list[list[int]]:
    pixels = np.asarray(decode(data))
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0].tolist()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"P1\n3 2\n1 0 1\n0 1 0\n", [[0, 255, 0], [255, 0, 255]]),
        (b"P1 3 2 101010", [[0, 255, 0], [255, 0, 255]]),
        (b"P1\n3 2\n1#one\n0 1#\n#\n01 0#end", [[0, 255, 0], [255, 0, 255]]),
        (b"P4\n3 2\n\xa0\x40", [[0, 255, 0], [255, 0, 255]]),
        (b"P2\n2 1\n255\n0 200", [[0, 200]]),
        (b"P2 2 1 15\n7 15", [[119, 255]]),
        (b"P2\n# a comment\n2 1 # one more\n100\n50#half\n100\n9", [[128, 255]]),
        (b"P2 3 1 65535 255 256 65535", [[0, 1, 255]]),
        (b"P2 2 1 1023 1023 512", [[255, 128]]),
        (b"P5\n2 2\n255\n\x00\x01\xfe\xff", [[0, 1], [254, 255]]),
        (b"P5 2 1 15\n\x07\x0f", [[119, 255]]),
        (b"P5 2 1 65535\n\x00\xff\xff\xff and more", [[0, 255]]),
        (b"P5 2 1 1023\n\x03\xff\x02\x00", [[255, 128]]),
    ],
)
def test_every_kind_of_grey(data: bytes, expected: list[list[int]]) -> None:
    assert values(data) == expected


@pytest.mark.parametrize(
    "data",
    [
        b"P3 2 1 255 255 0 0 0 0 255",
        b"P3\n2 1\n1\n1 0 0\n0 0 1\n",
        b"P6\n2 1\n255\n\xff\0\0\0\0\xff",
        b"P6\n2 1\n100\n\x64\0\0\0\0\x64",
        b"P6\n2 1\n65535\n\xff\xff\0\0\0\0\0\0\0\0\xff\xff",
    ],
)
def test_every_kind_of_colour(data: bytes) -> None:
    decoded = decode(data)
    assert [decoded.getpixel((x, 0)) for x in range(2)] == [(255, 0, 0), (0, 0, 255)]


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_gives_what_pillow_wrote(mode: str) -> None:
    image = Image.effect_noise((17, 5), 90).convert(mode)
    file = io.BytesIO()
    image.save(file, "PPM")
    assert (np.asarray(decode(file.getvalue())) == np.asarray(image.convert("RGB"))).all()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"P2 2 1 255 1", "1 samples of 2"),
        (b"P2 2 1 255 1 256", "a sample is 256"),
        (b"P2 2 1 255 1 99999999999999999999999", "a sample is"),
        (b"P2 2 1 255 1 -1", "no decimal numbers"),
        (b"P2 2 1 255 1 1e1", "no decimal numbers"),
        (b"P1 2 1 1 2", "a sample is 2"),
        (b"P5 2 1 255\n\x01", "1 samples of 2"),
        (b"P5 2 1 65535\n\x01\x01\x01", "1 samples of 2"),
        (b"P5 2 1 15\n\x01\x10", "a sample is 16"),
        (b"P5 2 1 0\n\x01\x10", "maxval"),
        (b"P5 2", "EOF"),
        (b"Pf 1 1 -1\n\0\0\0\0", "Pf is neither PBM, PGM nor PPM"),
        (b"PyRGBA 1 1 255\n\0\0\0\0", "PyRGBA is neither"),
        (b"P0CMYK 1 1 255\n\0\0\0\0", "P0CMYK is neither"),
        (b"P7\nWIDTH 1\nHEIGHT 1\n", "not a JPEG"),
        (b"PF 1 1 -1\n" + bytes(12), "not a JPEG"),
        (b"P5 " + b"#" * 300_000, "parts"),
    ],
)
def test_what_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason):
        decode(data)


def test_pixels_are_counted_before_they_are_read() -> None:
    with pytest.raises(TooManyPixelsError, match="9000x9000 is 81000000 pixels"):
        decode(b"P6 9000 9000 255\n", max_pixels=1000)


def test_comments_cost_no_more_than_other_bytes() -> None:
    size = 300
    body = b"\n".join(b"%d#\n#" % (index % 256) for index in range(size * size))
    assert values(b"P2 %d %d 255\n" % (size, size) + body)[0][:3] == [0, 1, 2]
