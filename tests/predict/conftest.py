"""Images of one colour, as files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from core.preprocess import encode_png


@pytest.fixture(scope="session")
def png() -> Callable[[str], bytes]:
    """Returns a function from a colour to the bytes of an image of it."""
    return lambda colour: encode_png(Image.new("RGB", (40, 50), colour))


@pytest.fixture
def put(here: Path, png: Callable[[str], bytes]) -> Callable[..., Path]:
    """Returns a function that writes an image of a colour, or bytes, to a path below here."""

    def write(path: str, content: str | bytes = "red") -> Path:
        file = here / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content if isinstance(content, bytes) else png(content))
        return file

    return write
