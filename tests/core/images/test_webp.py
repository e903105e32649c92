from __future__ import annotations

import io

import pytest
from PIL import Image

from core.images.webp import canvas_size, is_webp
from core.preprocess import ImageError, TooManyPixelsError, decode


def webp(mode: str, size: tuple[int, int], **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, size, 7).save(file, "WEBP", **options)
    return file.getvalue()


@pytest.mark.parametrize(
    ("mode", "options", "kind"),
    [
        ("RGB", {}, b"VP8 "),
        ("RGB", {"lossless": True}, b"VP8L"),
        ("RGBA", {"lossless": True}, b"VP8L"),
        ("RGBA", {}, b"VP8X"),
        ("RGB", {"exif": b"Exif\0\0II*\0"}, b"VP8X"),
    ],
)
def test_the_size_is_read_from_each_kind_of_header(
    mode: str, options: dict[str, object], kind: bytes
) -> None:
    data = webp(mode, (300, 20), **options)
    assert data[12:16] == kind
    assert is_webp(data)
    assert canvas_size(data) == (300, 20)
    assert decode(data, max_pixels=8000).size == (300, 20)
    with pytest.raises(TooManyPixelsError, match=r"300x20 as WebP is 6000 pixels.*5999"):
        decode(data, max_pixels=7999)
    for length in range(12, 30):
        with pytest.raises(ImageError):
            decode(data[:length])


def test_an_animation_has_the_size_of_its_canvas() -> None:
    file = io.BytesIO()
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue")]
    frames[0].save(file, "WEBP", save_all=True, append_images=frames[1:])
    assert canvas_size(file.getvalue()) == (40, 30)


def test_a_type_that_costs_more_has_a_smaller_limit() -> None:
    file = io.BytesIO()
    Image.new("RGB", (100, 80)).save(file, "JPEG2000")
    assert decode(file.getvalue(), max_pixels=16_000).size == (100, 80)
    with pytest.raises(TooManyPixelsError, match="8000 pixels of JPEG 2000, the limit is 7999"):
        decode(file.getvalue(), max_pixels=15_999)
