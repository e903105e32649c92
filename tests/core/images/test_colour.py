from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from samples import chunk, png

from core.images.colour import to_rgb
from core.preprocess import ImageError, UnsupportedImageError, decode

WHITE = (255, 255, 255)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def tiff(samples: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(samples).save(file, "TIFF", **options)
    return file.getvalue()


def raw_tiff(tags: dict[int, tuple[int, int, int]], data: bytes, order: str = "<") -> bytes:
    """Returns a TIFF of one strip: by tag, type, number of values and the value or its place."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    start = 8 + 2 + 12 * (len(tags) + 2) + 4
    tags = {**tags, 273: (4, 1, start), 279: (4, 1, len(data))}
    packed = b""
    for tag, (kind, count, value) in sorted(tags.items()):
        form = {3: "Hxx", 4: "I"}[kind if count == 1 else 4]
        packed += struct.pack(f"{order}HHI{form}", tag, kind, count, value)
    head = mark + struct.pack(order + "IH", 8, len(tags))
    return head + packed + bytes(4) + data


def grey_tiff(samples: np.ndarray, *, format: int, photometric: int = 1) -> bytes:
    height, width = samples.shape
    bits = 8 * samples.dtype.itemsize
    values = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 277: 1, 339: format}
    order = ">" if samples.dtype.str[0] == ">" else "<"
    return raw_tiff({tag: (3, 1, value) for tag, value in values.items()}, samples.tobytes(), order)


def grey(data: bytes) -> list[int]:
    pixels = np.asarray(decode(data))
    assert (pixels == pixels[..., :1]).all()
    return pixels[0, :, 0].tolist()


def key_png(bits: int, colour: int, rows: bytes, key: bytes, width: int) -> bytes:
    return png(width, 1, bits, colour, chunk(b"tRNS", key), chunk(b"IDAT", zlib.compress(rows)))


def test_a_key_colour_of_rgb_becomes_white() -> None:
    rows = b"\0" + bytes([*RED, *GREEN, 254, 0, 0])
    decoded = decode(key_png(8, 2, rows, struct.pack(">3H", *RED), 3))
    assert [decoded.getpixel((x, 0)) for x in range(3)] == [WHITE, GREEN, (254, 0, 0)]


def test_a_key_colour_of_sixteen_bits_becomes_white() -> None:
    rows = b"\0" + struct.pack(">4H", 1000, 1001, 0, 65535)
    assert grey(key_png(16, 0, rows, struct.pack(">H", 1000), 4)) == [255, 3, 0, 255]
    rows = b"\0" + struct.pack(">6H", 1000, 2000, 60000, 0, 0, 0)
    decoded = decode(key_png(16, 2, rows, struct.pack(">3H", 1000, 2000, 60000), 2))
    assert [decoded.getpixel((x, 0)) for x in range(2)] == [WHITE, (0, 0, 0)]


@pytest.mark.parametrize(
    ("bits", "row", "key", "expected"),
    [
        (1, 0b01 << 6, 0, [255, 255]),
        (1, 0b01 << 6, 1, [0, 255]),
        (2, 0b0110 << 4, 1, [255, 170]),
        (2, 0b0110 << 4, 2, [85, 255]),
        (4, 0x5A, 5, [255, 170]),
        (4, 0x5A, 0xFF0A, [85, 255]),  # only the low bits count
    ],
)
def test_a_key_colour_of_few_bits_becomes_white(
    bits: int, row: int, key: int, expected: list[int]
) -> None:
    assert grey(key_png(bits, 0, bytes([0, row]), struct.pack(">H", key), 2)) == expected


def test_a_palette_with_a_key_stays_as_it_was() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *GREEN])
    image.putpixel((1, 0), 1)
    file = io.BytesIO()
    image.save(file, "PNG", transparency=0)
    decoded = decode(file.getvalue())
    assert [decoded.getpixel((x, 0)) for x in range(2)] == [WHITE, GREEN]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "La", "RGBa"])
def test_transparency_is_laid_over_white_to_the_bit(mode: str) -> None:
    alpha, colour = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    image = Image.fromarray(np.stack([colour, colour, colour, alpha], axis=2))
    if mode == "PA":
        image = image.convert("LA").convert("PA")
    elif mode in ("La", "LA"):
        image = image.convert("LA").convert(mode)
    else:
        image = image.convert(mode)
    straight = image.convert("LA") if mode == "La" else image
    white = Image.new("RGBA", image.size, "white")
    expected = Image.alpha_composite(white, straight.convert("RGBA")).convert("RGB")
    assert (np.asarray(to_rgb(image)) == np.asarray(expected)).all()


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (np.array([[0, 127.9, 255]], np.float32), [0, 127, 255]),
        (np.array([[0, 0]], np.float32), [0, 0]),
        (np.array([[0, 128, 255]], np.int32), [0, 128, 255]),
    ],
)
def test_wide_samples_up_to_255_are_what_they_were(
    samples: np.ndarray, expected: list[int]
) -> None:
    assert grey(tiff(samples)) == expected


@pytest.mark.parametrize(
    "samples",
    [
        np.array([[0, 0.5, 1]], np.float32),
        np.array([[0.1, 0.2]], np.float32),
        np.array([[0, 65535]], np.float32),
        np.array([[-1, 200]], np.float32),
        np.array([[np.nan, 20]], np.float32),
        np.array([[np.inf, 20]], np.float32),
        np.array([[0, 256]], np.int32),
        np.array([[0, -5]], np.int32),
    ],
)
def test_wide_samples_of_no_known_range_are_refused(samples: np.ndarray) -> None:
    with pytest.raises(ImageError, match="no SMaxSampleValue says which is white"):
        decode(tiff(samples))


@pytest.mark.parametrize(
    ("samples", "range", "expected"),
    [
        (np.array([[0, 0.5, 1]], np.float32), (0.0, 1.0), [0, 128, 255]),
        (np.array([[-10, 0, 10]], np.float32), (-10.0, 10.0), [0, 128, 255]),
        (np.array([[0, 65535, 13107]], np.int32), (0, 65535), [0, 255, 51]),
    ],
)
def test_wide_samples_are_scaled_by_the_range_they_declare(
    samples: np.ndarray, range: tuple[float, float], expected: list[int]
) -> None:
    kind = 11 if samples.dtype == np.float32 else 9
    info = ImageFileDirectory_v2()
    for tag, value in zip((340, 341), range, strict=True):
        info.tagtype[tag] = kind
        info[tag] = value
    assert grey(tiff(samples, tiffinfo=info)) == expected
    with pytest.raises(ImageError, match="that it declares"):
        decode(tiff(samples * 3 + 2, tiffinfo=info))


def test_unsigned_samples_are_not_taken_for_negative_ones() -> None:
    with pytest.raises(ImageError, match="no SMaxSampleValue"):
        decode(grey_tiff(np.array([[0, 2**32 - 1]], "<u4"), format=1))
    assert grey(grey_tiff(np.array([[0, 200]], "<u4"), format=1)) == [0, 200]
    with pytest.raises(ImageError, match="from -200 to 200"):
        decode(grey_tiff(np.array([[-200, 200]], ">i2"), format=2))


def test_twelve_bits_keep_the_upper_eight() -> None:
    values = {256: 2, 257: 1, 258: 12, 259: 1, 262: 1, 277: 1}
    data = raw_tiff({tag: (3, 1, value) for tag, value in values.items()}, b"\xff\xf0\x10")
    assert grey(data) == [255, 1]


@pytest.mark.parametrize(
    ("samples", "format", "expected"),
    [
        (np.array([[0, 255]], "<u1"), 1, [255, 0]),
        (np.array([[0, 65535, 256]], "<u2"), 1, [255, 0, 254]),
        (np.array([[0, 200]], "<f4"), 3, [255, 55]),
    ],
)
def test_white_may_be_zero(samples: np.ndarray, format: int, expected: list[int]) -> None:
    assert grey(grey_tiff(samples, format=format, photometric=0)) == expected


@pytest.mark.parametrize(
    ("bits", "format", "words"),
    [(32, 3, r"3 samples of 32 bits each \(float\)"), (32, 1, r"3 samples of 32 bits each \(uns")],
)
def test_what_kind_of_tiff_is_refused_is_said(bits: int, format: int, words: str) -> None:
    tags = {256: 1, 257: 1, 258: bits, 259: 1, 262: 2, 277: 3, 339: format}
    data = raw_tiff({tag: (3, 1, value) for tag, value in tags.items()}, bytes(3 * bits // 8))
    with pytest.raises(UnsupportedImageError, match=words):
        decode(data)


@pytest.mark.parametrize("mode", ["RGB", "RGBX", "RGBA", "CMYK", "YCbCr", "LAB", "1", "L", "P"])
def test_every_mode_of_a_tiff_gives_its_colours(mode: str) -> None:
    image = Image.new("RGB", (4, 1))
    for x, colour in enumerate((WHITE, (0, 0, 0), RED, BLUE)):
        image.putpixel((x, 0), colour)
    if mode == "LAB":
        spaces = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        stored = ImageCms.applyTransform(image, ImageCms.buildTransform(*spaces, "RGB", "LAB"))
    else:
        stored = image.convert(mode)
    file = io.BytesIO()
    assert stored is not None
    stored.save(file, "TIFF")
    expected = stored.convert("RGB") if mode in ("1", "L") else image
    difference = np.asarray(decode(file.getvalue())).astype(int) - np.asarray(expected)
    assert np.abs(difference).max() <= (24 if mode == "LAB" else 3)
