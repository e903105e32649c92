from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps
from samples import samples
from sklearn.datasets import load_sample_images

from core.errors import UserError
from core.images.colour import Mode, to_rgb
from core.preprocess import (
    FORMATS,
    GAP,
    MODES,
    TYPES,
    ImageError,
    Interpolation,
    Preprocess,
    TooManyPixelsError,
    UnsupportedImageError,
    decode,
)

ROOT = Path(__file__).resolve().parents[2]
SMALL = Preprocess(resize=40, crop=32)
FAR = round(2 * GAP * SMALL.resize)  # from this shorter side on, images are shrunk first


def encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def noise(width: int, height: int) -> Image.Image:
    bands = [Image.effect_noise((width, height), 80) for _ in range(3)]
    return Image.merge("RGB", bands)


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


@pytest.mark.parametrize("format", FORMATS)
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
        (encode(Image.effect_noise((64, 64), 50), "JPEG")[:900], "a JPEG that is cut short"),
        (encode(Image.effect_noise((64, 64), 50))[:900], "cannot be read as an image"),
    ],
    ids=["empty", "text", "cut JPEG", "cut PNG"],
)
@pytest.mark.parametrize("shorter", [None, 16])
def test_what_is_no_image_is_said_in_one_line(
    data: bytes, reason: str, shorter: int | None
) -> None:
    with pytest.raises(ImageError, match=reason) as caught:
        decode(data, least=shorter)
    assert "\n" not in str(caught.value)


def test_pixels_are_counted_before_they_are_decoded() -> None:
    data = encode(Image.new("L", (400, 300)))
    assert decode(data, max_pixels=120_000).size == (400, 300)
    with pytest.raises(TooManyPixelsError, match="400x300 is 120000 pixels, the limit is 119999"):
        decode(data[:60], max_pixels=119_999)  # the header only
    with pytest.raises(TooManyPixelsError, match="400x300 is 120000 pixels"):
        decode(encode(Image.new("L", (400, 300)), "JPEG"), max_pixels=119_999, least=40)


def test_an_image_is_refused_without_a_warning_of_pillow(tmp_path: Path) -> None:
    file = tmp_path / "huge.png"
    Image.new("1", (10_000, 9_000)).save(file)
    code = "import sys; from core.preprocess import *; decode(Path(sys.argv[1]))"
    ran = subprocess.run(
        [sys.executable, "-c", code, str(file)], cwd=ROOT, capture_output=True, text=True
    )
    assert "10000x9000 is 90000000 pixels, the limit is" in ran.stderr
    assert "DecompressionBombWarning" not in ran.stderr


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "broken.jpg"
    file.write_bytes(b"no")
    with pytest.raises(ImageError, match=r"broken\.jpg"):
        decode(file)


def test_impossible_settings() -> None:
    with pytest.raises(UserError, match="crop is 0 and resize is 64"):
        Preprocess(resize=64, crop=0)
    with pytest.raises(UserError, match="interpolation is 'area'"):
        Preprocess(resize=64, crop=64, interpolation="area")  # type: ignore[arg-type]


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_only_images_far_larger_than_the_crop_are_shrunk_first(
    format: str, interpolation: Interpolation
) -> None:
    preprocess = Preprocess(resize=40, crop=32, interpolation=interpolation)

    def changes(width: int, height: int) -> bool:
        data = encode(noise(width, height), format)
        shrunk = preprocess(decode(data, least=preprocess.least))
        return bool((shrunk != preprocess(decode(data), gap=None)).any())

    assert not any(changes(*size) for size in ((28, 28), (64, 64), (FAR - 1, 2 * FAR)))
    assert changes(FAR + 1, 2 * FAR)
    assert changes(2 * FAR, FAR + 1)


@pytest.mark.parametrize(
    ("shorter", "size"),
    [
        (None, (400, 324)),
        (400, (400, 324)),
        (163, (400, 324)),
        (162, (200, 162)),
        (81, (100, 81)),
        (41, (100, 81)),
        (40, (50, 41)),
        (1, (50, 41)),
    ],
)
def test_a_jpeg_keeps_the_shorter_side_asked_for(
    shorter: int | None, size: tuple[int, int]
) -> None:
    image = noise(400, 324)
    assert decode(encode(image, "JPEG"), least=shorter).size == size
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encode(image, "JPEG", exif=exif), least=shorter).size == size[::-1]
    assert decode(encode(image, "PNG"), least=shorter).size == (400, 324)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_keeps_both_sides_asked_for(orientation: int) -> None:
    # 72x240 pixels need 144x480 of 170x600: half of 340x1200, in whichever way it lies.
    preprocess = Preprocess(resize=(72, 240), crop=(64, 220))
    exif = Image.Exif()
    exif[0x0112] = orientation
    lying = (340, 1200) if orientation >= 5 else (1200, 340)
    data = encode(noise(*lying).resize(lying), "JPEG", exif=exif)
    image = decode(data, least=preprocess.least)
    assert image.size == (600, 170)
    far = np.abs(preprocess(image).astype(int) - preprocess(decode(data), gap=None))
    assert far.mean() < 4  # of noise: libjpeg's scaling is not quite Pillow's


@pytest.mark.parametrize(
    ("mode", "format", "options"),
    [
        ("RGB", "JPEG", {}),
        ("RGB", "JPEG", {"progressive": True}),
        ("RGB", "JPEG", {"keep_rgb": True}),
        ("L", "JPEG", {}),
        ("CMYK", "JPEG", {}),
        ("RGB", "MPO", {"save_all": True, "append_images": [Image.new("RGB", (160, 80))]}),
    ],
    ids=["colour", "progressive", "as RGB", "grey", "CMYK", "MPO"],
)
def test_every_kind_of_jpeg_comes_smaller_and_the_same(
    mode: str, format: str, options: dict[str, object]
) -> None:
    image = Image.new("RGB", (160, 80), (20, 90, 250))
    image.paste((250, 200, 30), (80, 0, 160, 80))
    data = encode(image.convert(mode), format, quality=95, subsampling=0, **options)
    whole, small = decode(data), decode(data, least=20)
    assert (whole.mode, small.mode, small.size) == ("RGB", "RGB", (40, 20))
    expected = np.asarray(whole.reduce(4)).astype(int)
    assert np.abs(np.asarray(small) - expected).max() <= 2


@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_photo_shrunk_first_is_nearly_the_same(format: str) -> None:
    photo = Image.fromarray(load_sample_images().images[0]).crop((0, 0, 640, 424))
    data = encode(photo, format, quality=95)
    full = SMALL(decode(data), gap=None).astype(int)
    near = SMALL(decode(data, least=SMALL.least)).astype(int)
    assert 0 < np.abs(near - full).mean() < 1
    assert np.abs(near - full).max() < 10


@pytest.mark.parametrize("angle", [0, 90])
def test_a_jpeg_of_odd_size_moves_by_less_than_half_a_pixel(angle: int) -> None:
    ramp = Image.linear_gradient("L").rotate(angle).resize((637, 417))
    data = encode(ramp, "JPEG", quality=100)
    full = SMALL(decode(data), gap=None)[..., 0].astype(int)
    near = SMALL(decode(data, least=SMALL.least))[..., 0].astype(int)
    step = np.abs(np.diff(full, axis=0)).mean() + np.abs(np.diff(full, axis=1)).mean()
    assert step > 3  # grey levels from one pixel to the next
    assert np.abs(near - full).max() <= step / 2 + 1  # 1: rounded


def test_a_decoded_image_needs_its_file_no_more(tmp_path: Path) -> None:
    for format in FORMATS:
        file = tmp_path / "image"
        noise(64, 48).save(file, format)
        image, expected = decode(file), SMALL(decode(file.read_bytes()))
        file.write_bytes(b"")
        assert (SMALL(image) == expected).all(), format


def plain_pillow(data: bytes, shorter: int | None) -> Image.Image:
    """Returns what Pillow alone makes of an image, by the words of :func:`decode`."""
    with Image.open(io.BytesIO(data)) as image:
        if shorter:
            image.draft(None, (shorter, shorter))
        upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8)).convert("RGB")
    if upright.has_transparency_data:
        coloured = upright.convert("RGBA")
        white = Image.new("RGBA", coloured.size, "white")
        return Image.alpha_composite(white, coloured).convert("RGB")
    return upright.convert("RGB")


@pytest.mark.parametrize("shorter", [None, 10])
@pytest.mark.parametrize("name", [name for name in samples() if not name.startswith("ppm")])
def test_a_sound_image_keeps_every_bit(name: str, shorter: int | None) -> None:
    data = samples()[name]
    expected = np.asarray(plain_pillow(data, shorter))
    assert (np.asarray(decode(data, least=shorter)) == expected).all()


def test_the_types_are_one_list() -> None:
    sound = {Image.open(io.BytesIO(data)).format for data in samples().values()}
    assert sound == set(FORMATS)
    assert len(TYPES) == len(FORMATS)
    assert {"AVIF", "JPEG 2000", "PPM", "HEIC"} < set(TYPES)
    with pytest.raises(ImageError, match=f"not a {', '.join(TYPES[:-1])} or {TYPES[-1]} image"):
        decode(b"no image")


def test_heic_names_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    without = tuple(each for each in FORMATS if each != "HEIF")
    monkeypatch.setattr("core.preprocess.FORMATS", without)
    with pytest.raises(UnsupportedImageError, match=r"pip install '\.\[heic\]'"):
        decode(samples()["heif"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("given", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_an_image_of_any_mode_gets_the_channels_asked_for(given: str, mode: Mode) -> None:
    image = Image.new("RGBA", (40, 30), (200, 100, 50, 0 if given in ("LA", "RGBA") else 255))
    if given == "I;16":
        image = Image.fromarray(np.full((30, 40), 100 << 8, np.uint16))
    elif given != "RGBA":
        image = image if given == "LA" else image.convert("RGB")
        image = image.convert(given, dither=Image.Dither.NONE)
    made = Preprocess(resize=20, crop=(16, 24), channels=len(mode))
    pixels = made(decode(encode(image, "TIFF"), mode=made.mode))
    assert pixels.shape == (16, 24, len(mode))
    transparent = given in ("LA", "RGBA")
    if mode.endswith("A"):
        assert (pixels[..., -1] == (0 if transparent else 255)).all()
    else:
        expected = np.asarray(to_rgb(image).convert(mode))[0, 0]
        assert (pixels == expected).all()
        assert (pixels == 255).all() == transparent


def test_channels_and_fill_belong_together() -> None:
    assert Preprocess(resize=8, crop=8, channels=4).fill == (0, 0, 0, 0)
    with pytest.raises(UserError, match=r"channels is 5: it must be 1 \(grey\), 2"):
        Preprocess(resize=8, crop=8, channels=5)
    with pytest.raises(UserError, match=r"fill is \[1, 2\]: it must have 3 values"):
        Preprocess(resize=8, crop=8, fill=(1, 2))
