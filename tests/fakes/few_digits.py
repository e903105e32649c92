"""Some of the handwritten digits, where a training needs no more of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from PIL import Image

from training.data import ImageData
from training.datasets import load_data


def few_digits(name: str, *, train: int, val: int) -> ImageData:
    """Returns digits under another name: ``train`` to learn from, and ``val`` held out."""
    data = load_data("digits")
    return dataclasses.replace(data, name=name, train=data.train[:train], val=data.val[:val])


def write_images(data: ImageData, parent: Path) -> Path:
    """Returns a folder in ``parent`` with the images of ``data``, named as that is."""
    root = parent / data.name
    for part, samples in data.parts.items():
        for index, (image, label) in enumerate(samples):
            folder = root / part / data.labels[label]
            folder.mkdir(parents=True, exist_ok=True)
            assert isinstance(image, Image.Image)
            image.save(folder / f"{index}.png")
    return root
