from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from bench.load.plan import CROPS, SIZES, photos, read_images
from core.errors import UserError


def test_images_come_from_a_file_or_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    with pytest.raises(UserError, match="no image there"):
        read_images(folder)
    (folder / "b.png").write_bytes(b"2")
    (folder / "a.png").write_bytes(b"1")
    assert read_images(folder) == [b"1", b"2"]
    assert read_images(folder / "b.png") == [b"2"]


@pytest.mark.parametrize("size", SIZES)
def test_photos_are_different_jpegs_of_one_size(size: tuple[int, int]) -> None:
    files = photos(*size)
    assert len(set(files)) == 2 * CROPS
    for file in files:
        with Image.open(io.BytesIO(file)) as image:
            assert (image.format, image.size) == ("JPEG", size)


def test_photos_are_the_same_every_time() -> None:
    assert photos(30, 20) == photos(30, 20)
