from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from bombs import coding, jpeg2000
from PIL import Image

from core.images.jpeg2000 import read_headers
from core.preprocess import decode


def encode(mode: str = "RGB", **how: Any) -> bytes:
    file = io.BytesIO()
    Image.linear_gradient("L").resize((500, 300)).convert(mode).save(file, "JPEG2000", **how)
    return file.getvalue()


@pytest.mark.parametrize("no_jp2", [False, True])
@pytest.mark.parametrize(
    ("how", "components", "tiles", "blocks", "packets"),
    [
        ({"mode": "L", "num_resolutions": 1}, 1, 1, 41, 1),
        ({"mode": "L", "num_resolutions": 2}, 1, 1, 50, 2),
        ({"num_resolutions": 1}, 3, 1, 3 * 41, 3),
        ({"mode": "L", "num_resolutions": 1, "codeblock_size": (32, 16)}, 1, 1, 305, 1),
        ({"mode": "L", "num_resolutions": 1, "tile_size": (256, 256)}, 1, 4, 4 * 17, 4),
        ({"mode": "L", "num_resolutions": 1, "quality_layers": [9, 3, 1]}, 1, 1, 41, 3),
        ({"mode": "L", "num_resolutions": 1, "precinct_size": (128, 128)}, 1, 1, 52, 12),
    ],
)
def test_counts_what_a_decoder_makes(
    how: dict[str, Any], components: int, tiles: int, blocks: int, packets: int, no_jp2: bool
) -> None:
    headers = read_headers(encode(**how, no_jp2=no_jp2))
    assert headers == (500, 300, components, tiles, blocks, packets)


def test_a_tile_may_have_a_header_of_its_own() -> None:
    usual = read_headers(jpeg2000(1400))
    own = read_headers(jpeg2000(1400, own=coding(7, 0, None)))
    assert own.blocks > 100 * usual.blocks
    assert own.packets == 7 * usual.packets


@pytest.mark.parametrize("cut", [3, 20, 60])
def test_headers_that_are_cut_are_broken(cut: int) -> None:
    with pytest.raises(OSError, match="its headers are broken"):
        read_headers(encode(no_jp2=True)[:cut])


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_pixels_are_those_that_were_written(mode: str) -> None:
    image = Image.linear_gradient("L").resize((90, 60)).convert(mode)
    file = io.BytesIO()
    image.save(file, "JPEG2000")
    assert (np.asarray(decode(file.getvalue())) == np.asarray(image.convert("RGB"))).all()


def test_more_than_eight_bits_keep_the_upper_eight() -> None:
    samples = np.array([[0, 255, 256, 65535]] * 4, np.uint16)
    file = io.BytesIO()
    Image.fromarray(samples).save(file, "JPEG2000")
    assert np.asarray(decode(file.getvalue()))[0, :, 0].tolist() == [0, 0, 1, 255]
