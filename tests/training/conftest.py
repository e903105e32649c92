from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from PIL import Image

MakeImages = Callable[..., list[Path]]


@pytest.fixture
def make_images() -> MakeImages:
    """Returns a function that puts images into a folder, no two alike, and returns their files."""
    shades = count(1)

    def make(folder: Path, number: int, *, suffix: str = ".png") -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"{index}{suffix}" for index in range(number)]
        for file in files:
            shade = next(shades)
            Image.new("RGB", (40, 50), (shade % 256, shade // 256, 99)).save(file)
        return files

    return make


@pytest.fixture
def folder(tmp_path: Path, make_images: MakeImages) -> Path:
    """Returns a folder of ten images in each of two classes."""
    for label in ("cat", "dog"):
        make_images(tmp_path / "pets" / label, 10)
    return tmp_path / "pets"
