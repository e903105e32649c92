from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.errors import UserError
from models.preprocess import ImageError, Preprocess, TooManyPixelsError, decode


def encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def test_crops_the_centre_of_the_resized_image() -> None:
    image = Image.new("RGB", (400, 200), "red")
    image.paste("blue", (150, 50, 250, 150))  # the centre square, half the height
    pixels = Preprocess(resize=100, crop=50)(image)
    assert pixels.shape == (50, 50, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == (0, 0, 255)).all(axis=-1).mean() > 0.9


def test_equals_resize_then_crop_where_sizes_divide() -> None:
    random = np.random.default_rng(0)
    image = Image.fromarray(random.integers(0, 256, (128, 128, 3), dtype=np.uint8))
    ours = Preprocess(resize=64, crop=48)(image).astype(int)
    resized = image.resize((64, 64), Image.Resampling.BILINEAR).crop((8, 8, 56, 56))
    inside = (slice(1, -1), slice(1, -1))  # at the border the source of the resample differs
    assert np.abs(ours - np.asarray(resized).astype(int))[inside].max() <= 1


@pytest.mark.parametrize("format", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_format_and_size_gives_the_shape_asked_for(format: str) -> None:
    for size in ((1, 1), (7, 300), (300, 7), (33, 33)):
        pixels = Preprocess(resize=40, crop=32)(decode(encode(Image.new("RGB", size), format)))
        assert pixels.shape == (32, 32, 3)


def test_grey_becomes_three_equal_channels() -> None:
    pixels = np.asarray(decode(encode(Image.linear_gradient("L"))))
    assert (pixels[..., 0] == pixels[..., 1]).all()
    assert (pixels[..., 0] == pixels[..., 2]).all()
    assert (pixels[:, 0, 0] == np.arange(256)).all()


def test_sixteen_bits_keep_the_upper_eight() -> None:
    deep = Image.fromarray(np.array([[0, 255, 256, 65535]], dtype=np.uint16))
    assert np.asarray(decode(encode(deep)))[0, :, 0].tolist() == [0, 0, 1, 255]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_laid_over_white(mode: str) -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    decoded = decode(encode(image.convert(mode) if mode != "RGBA" else image))
    assert decoded.getpixel((0, 0)) == (255, 255, 255)
    assert decoded.getpixel((1, 0)) == (0, 0, 0)


def test_exif_rotation_is_honoured() -> None:
    image = Image.new("RGB", (20, 10), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to see it upright
    assert decode(encode(image, "JPEG", exif=exif)).size == (10, 20)


def test_cmyk_becomes_rgb() -> None:
    decoded = decode(encode(Image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG"))
    red, green, blue = decoded.getpixel((2, 2))
    assert red > 200
    assert max(green, blue) < 60


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not a JPEG, PNG"),
        (b"<html>", "not a JPEG, PNG"),
        (encode(Image.effect_noise((64, 64), 50), "JPEG")[:900], "cannot be read as an image"),
        (encode(Image.effect_noise((64, 64), 50))[:900], "cannot be read as an image"),
    ],
    ids=["empty", "text", "cut JPEG", "cut PNG"],
)
def test_what_is_no_image_is_said_in_one_line(data: bytes, reason: str) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        decode(data)
    assert "\n" not in str(caught.value)


def test_pixels_are_counted_before_they_are_decoded() -> None:
    data = encode(Image.new("L", (400, 300)))
    assert decode(data, max_pixels=120_000).size == (400, 300)
    with pytest.raises(TooManyPixelsError, match="400x300 is 120000 pixels, the limit is 119999"):
        decode(data[:60], max_pixels=119_999)  # the header only


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "broken.jpg"
    file.write_bytes(b"no")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        decode(file)


def test_impossible_settings() -> None:
    with pytest.raises(UserError, match="crop is 65 and resize is 64"):
        Preprocess(resize=64, crop=65)
    with pytest.raises(UserError, match="interpolation is 'area'"):
        Preprocess(resize=64, crop=64, interpolation="area")  # type: ignore[arg-type]
