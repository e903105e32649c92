"""Encoded images to post to a server. No torch here."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from export.artifact import Artifact
from models.errors import UserError
from models.preprocess import encode_png


def read_images(path: Path) -> list[bytes]:
    """Returns the bytes of an image file, or of every file in a folder, in order of name."""
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise UserError(f"{path}: no image there; give a file or a folder of images")
    return [file.read_bytes() for file in files]


def golden_images(folder: Path) -> list[bytes]:
    """Returns the golden images of the artifact in ``folder`` as PNG files."""
    pixels, _ = Artifact.load(folder).golden()
    return [encode_png(Image.fromarray(image)) for image in pixels]
