from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import pytest
from bombs import bombs
from PIL import Image
from samples import samples

from core.images.limits import bomb_in_body, bomb_in_header
from core.preprocess import ImageError, TooManyPixelsError, decode

LIMIT = 2_000_000


@pytest.mark.parametrize("name", [name for name, (status, _) in bombs().items() if status != 200])
def test_a_bomb_is_refused(name: str) -> None:
    status, data = bombs()[name]
    with pytest.raises(TooManyPixelsError if status == 413 else ImageError) as error:
        decode(data, max_pixels=LIMIT)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", samples())
def test_an_honest_image_is_taken(name: str) -> None:
    data = samples()[name]
    assert bomb_in_header(data, LIMIT) is None
    with Image.open(io.BytesIO(data)) as image:
        assert bomb_in_body(image, data, max_pixels=image.width * image.height) is None


def tiled(order: str, *, big: bool, side: int) -> bytes:
    """Returns a grey TIFF of 16 x 16 pixels in one tile of ``side`` x ``side``."""
    data = zlib.compress(bytes(side * side))
    tags = {256: 16, 257: 16, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side}
    tags |= {324: 16 + 8 + 10 * 20 + 8 if big else 8 + 2 + 10 * 12 + 4, 325: len(data)}
    mark = b"II" if order == "<" else b"MM"
    if big:
        start = mark + struct.pack(order + "HHHQQ", 43, 8, 0, 16, len(tags))
        form = "HHQI4x"
    else:
        start = mark + struct.pack(order + "HIH", 42, 8, len(tags))
        form = "HHII"
    entries = [struct.pack(order + form, tag, 4, 1, value) for tag, value in sorted(tags.items())]
    return start + b"".join(entries) + bytes(8 if big else 4) + data


# Pillow reads no big-endian BigTIFF.
@pytest.mark.parametrize(("order", "big"), [("<", False), (">", False), ("<", True)])
def test_every_kind_of_tiff_is_looked_into(order: str, big: bool) -> None:
    assert decode(tiled(order, big=big, side=32), max_pixels=LIMIT).size == (16, 16)
    with pytest.raises(TooManyPixelsError, match="16x16 in 1 tiles of 2000x2000"):
        decode(tiled(order, big=big, side=2000), max_pixels=LIMIT)


@pytest.mark.parametrize("extra", [b"\xff\xda" * 1000, b"\xff\xd9" + b"\xff\xda\0\2" * 1000])
def test_only_scans_are_counted(extra: Any) -> None:
    """Returns nothing: what follows the end, or stands in a comment, is none."""
    file = io.BytesIO()
    Image.new("RGB", (40, 40)).save(file, "JPEG", progressive=True, comment=extra[:60_000])
    data = file.getvalue() + extra
    assert decode(data, max_pixels=1600).size == (40, 40)
