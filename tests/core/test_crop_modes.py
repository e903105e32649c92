"""Every way to crop gives the pixels that timm's own transform gives."""

from __future__ import annotations

import math
from dataclasses import asdict

import numpy as np
import pytest
import timm
from PIL import Image
from pydantic import TypeAdapter
from sklearn.datasets import load_sample_images

from core.errors import UserError
from core.image_size import Size, sides
from core.preprocess import CropMode, Interpolation, Preprocess
from models.timm_nets import published_form

MEAN = (0.5, 0.4, 0.3)
SIZES = [(96, 72), (72, 96), (40, 30), (31, 97), (300, 20), (64, 64), (1, 9)]
PHOTO = Image.fromarray(load_sample_images().images[0])


def noise(width: int, height: int) -> Image.Image:
    random = np.random.default_rng(width * height)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def timms(
    image: Image.Image, crop: Size, pct: float, mode: CropMode, interpolation: Interpolation
) -> np.ndarray:
    transform = timm.data.create_transform(
        (3, *sides(crop)),
        crop_pct=pct,
        crop_mode=mode,
        interpolation=interpolation,
        mean=MEAN,
        normalize=False,
    )
    return np.asarray(transform(image).permute(1, 2, 0)).astype(int)


def ours(
    image: Image.Image, crop: Size, pct: float, mode: CropMode, interpolation: Interpolation
) -> np.ndarray:
    form = published_form(
        {
            "input_size": (3, *sides(crop)),
            "crop_pct": pct,
            "crop_mode": mode,
            "interpolation": interpolation,
            "mean": MEAN,
            "std": MEAN,
        }
    )
    return form.preprocess(image, gap=None).astype(int)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["squash", "border"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("crop", [48, (32, 64), (60, 40)])
def test_the_whole_image_to_the_pixel(
    crop: Size, size: tuple[int, int], mode: CropMode, interpolation: Interpolation
) -> None:
    image = noise(*size)
    expected = timms(image, crop, 1.0, mode, interpolation)
    pixels = ours(image, crop, 1.0, mode, interpolation)
    assert pixels.shape == (*sides(crop), 3)
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["center", "squash"])
@pytest.mark.parametrize(
    ("crop", "size"),
    [
        *((42, size) for size in ((128, 96), (96, 128), (32, 24), (64, 64))),
        *(((42, 84), size) for size in ((192, 96), (96, 96), (48, 24), (64, 96))),
    ],
)
def test_a_part_of_the_image_to_the_pixel_where_margins_are_whole(
    crop: Size, size: tuple[int, int], mode: CropMode, interpolation: Interpolation
) -> None:
    photo = PHOTO.resize(size)
    far = np.abs(
        ours(photo, crop, 0.875, mode, interpolation)
        - timms(photo, crop, 0.875, mode, interpolation)
    )
    assert far.max() <= 2  # rounded between the two passes, of which either may be the first


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("pct", [0.9, 0.95, 1.15])
@pytest.mark.parametrize("size", [(500, 375), (333, 500), (40, 30)])
@pytest.mark.parametrize("crop", [96, (96, 128), (96, 60)])
def test_a_photo_lies_less_than_a_pixel_from_timms(
    crop: Size, size: tuple[int, int], pct: float, mode: CropMode, interpolation: Interpolation
) -> None:
    # timm crops at whole pixels of the resized image, here it is cropped where its centre is.
    ramp = Image.merge("RGB", [Image.linear_gradient("L").resize(size)] * 3)
    pixels = ours(ramp, crop, pct, mode, interpolation)
    expected = timms(ramp, crop, pct, mode, interpolation)
    inside = (expected != 0) & (expected != np.round(np.array(MEAN) * 255))
    step = max(np.abs(np.diff(expected[20:-20, 48, 0])).max(), 1)
    assert np.abs(pixels - expected)[inside].max() <= step


def test_a_crop_larger_than_the_image_is_black_around_it() -> None:
    pixels = Preprocess(resize=20, crop=24)(Image.new("RGB", (40, 40), "white"))
    assert (pixels[2:22, 2:22] == 255).all()
    assert pixels.sum() == 20 * 20 * 3 * 255


def test_borders_have_the_colour_that_normalisation_makes_zero() -> None:
    form = published_form(
        timm.data.resolve_data_config(
            pretrained_cfg=timm.get_pretrained_cfg("deepseek_vit_412m").to_dict()
        )
    )
    assert form.preprocess.crop_mode == "border"
    pixels = form.preprocess(Image.new("RGB", (100, 10), "white"))
    assert (pixels[0, 0] == [round(255 * mean) for mean in form.mean]).all()
    assert (pixels[form.preprocess.size[0] // 2] == 255).all()


def test_what_is_far_larger_is_shrunk_first_in_every_mode() -> None:
    photo = PHOTO.resize((1280, 848))
    for mode in ("center", "squash", "border"):
        preprocess = Preprocess(resize=64, crop=64, crop_mode=mode)
        far = np.abs(preprocess(photo).astype(int) - preprocess(photo, gap=None).astype(int))
        assert far.mean() < 1


def test_what_was_written_without_a_mode_crops_the_centre() -> None:
    adapter = TypeAdapter(Preprocess)
    old = '{"resize": 40, "crop": 32, "interpolation": "bicubic"}'
    plain = Preprocess(resize=40, crop=32, interpolation="bicubic")
    assert adapter.validate_json(old, strict=True) == plain
    bordered = Preprocess(resize=40, crop=44, crop_mode="border", fill=(1, 2, 3))
    assert adapter.validate_json(adapter.dump_json(bordered), strict=True) == bordered
    assert Preprocess(**asdict(bordered)) == bordered  # as a checkpoint has it
    wide = Preprocess(resize=(40, 50), crop=(32, 40))
    assert adapter.validate_json(adapter.dump_json(wide), strict=True) == wide
    assert Preprocess(**asdict(wide)) == wide
    assert adapter.dump_python(Preprocess(resize=(40, 40), crop=(32, 32)))["crop"] == 32


def test_impossible_modes() -> None:
    with pytest.raises(UserError, match=r"crop_mode is 'fit': it must be one of \['center'"):
        Preprocess(resize=64, crop=64, crop_mode="fit")  # type: ignore[arg-type]
    with pytest.raises(UserError, match=r"fill is \[0, 0, 256\]: each must lie in 0..255"):
        Preprocess(resize=64, crop=64, fill=(0, 0, 256))


def test_crop_pct_is_rounded_as_timm_rounds_it() -> None:
    for crop, pct in ((224, 0.875), (224, 0.9), (288, 0.95), (448, 1.15), (224, 0.965)):
        form = published_form(
            {
                "input_size": (3, crop, crop),
                "crop_pct": pct,
                "crop_mode": "center",
                "interpolation": "bicubic",
                "mean": MEAN,
                "std": MEAN,
            }
        )
        assert form.preprocess.resize == math.floor(crop / pct)
