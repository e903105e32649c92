from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns a folder of ten images in each of two classes."""
    for label, colour in (("cat", "red"), ("dog", "blue")):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for index in range(10):
            Image.new("RGB", (40, 50), colour).save(tmp_path / "pets" / label / f"{index}.png")
    return tmp_path / "pets"
