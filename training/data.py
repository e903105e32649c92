"""Labelled images, split into those to learn from and those held out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from models.errors import UserError, closest
from models.preprocess import Pixels, Preprocess, decode

Sample = tuple[Path | Image.Image, int]

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
HELD_OUT = 0.2
SPLIT_SEED = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageData:
    """A data set: images (decoded, or files to decode) with their class index.

    Attributes:
        name: what runs and artifacts on this data are filed under.
        labels: class names, in the order of the class indices.
        train: samples to learn from.
        val: samples held out; no image is in both.
    """

    name: str
    labels: tuple[str, ...]
    train: Sequence[Sample]
    val: Sequence[Sample]


def load_data(data: str) -> ImageData:
    """Returns a data set by name, or a folder of images by path.

    A folder holds one folder of images per class, or ``train`` and ``val`` folders that do; class
    names are folder names. What is not split yet is split by a fixed seed, 20 % held out of each
    class.

    Raises:
        UserError: neither a known name nor a folder, or a folder without two classes of images.
    """
    if data in _BUILT_IN:
        return _BUILT_IN[data]()
    if Path(data).is_dir():
        return _folder(Path(data).resolve())
    raise UserError(
        f"unknown data {data!r}: neither a folder nor a data set; {closest(data, _BUILT_IN)}"
    )


def open_image(source: Path | Image.Image) -> Image.Image:
    """Returns the decoded image of a sample; ImageError names the file that cannot be read."""
    return source if isinstance(source, Image.Image) else decode(source)


def pixel_batches(
    samples: Sequence[Sample], preprocess: Preprocess, *, size: int
) -> Iterator[tuple[Pixels, np.ndarray[tuple[int], np.dtype[np.int64]]]]:
    """Yields uint8 (n, crop, crop, 3) and int64 (n,) class indices, ``size`` images at a time."""
    for start in range(0, len(samples), size):
        chunk = samples[start : start + size]
        pixels = np.stack([preprocess(open_image(source)) for source, _ in chunk])
        yield pixels, np.array([label for _, label in chunk], dtype=np.int64)


def sample_photos(count: int, *, seed: int = 0) -> list[Image.Image]:
    """Returns ``count`` random crops, half of them mirrored, of photos two libraries ship.

    For networks without a data set: real things, so activations have natural ranges and ImageNet
    weights something to recognise.
    """
    import skimage.data
    from sklearn.datasets import load_sample_images

    names = ("astronaut", "camera", "chelsea", "coffee", "coins", "rocket")
    arrays = [*load_sample_images().images, *(getattr(skimage.data, name)() for name in names)]
    photos = [Image.fromarray(array) for array in arrays]
    random = np.random.default_rng(seed)
    crops = []
    for index in range(count):
        photo = photos[index % len(photos)]
        side = int(random.uniform(0.7, 1.0) * min(photo.size))
        left, top = (int(random.integers(0, room - side + 1)) for room in photo.size)
        crop = photo.crop((left, top, left + side, top + side))
        mirrored = random.random() < 0.5
        crops.append(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if mirrored else crop)
    return crops


def _digits() -> ImageData:
    """Returns scikit-learn's 1,797 handwritten digits: grey, 8x8, 17 levels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    samples: list[Sample] = [
        (Image.fromarray(image), int(label))
        for image, label in zip(grey, digits.target, strict=True)
    ]
    train, val = _split(samples)
    return ImageData(name="digits", labels=tuple("0123456789"), train=train, val=val)


_BUILT_IN = {"digits": _digits}


def _folder(folder: Path) -> ImageData:
    roots = [folder / "train", folder / "val"]
    if any(root.is_dir() for root in roots):
        for root in roots:
            if not root.is_dir():
                raise UserError(f"{folder}: it holds only one of train/ and val/; add {root.name}/")
        labels = _class_names(roots[0])
        if (other := _class_names(roots[1])) != labels:
            differing = ", ".join(sorted(set(labels) ^ set(other)))
            raise UserError(f"{folder}: train/ and val/ differ in these classes: {differing}")
        train, val = (_class_samples(root, labels) for root in roots)
    else:
        labels = _class_names(folder)
        train, val = _split(_class_samples(folder, labels))
    return ImageData(name=folder.name, labels=labels, train=train, val=val)


def _class_names(root: Path) -> tuple[str, ...]:
    names = tuple(
        sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))
    )
    if len(names) < 2:
        found = f"one class folder ({names[0]})" if names else "no class folders"
        raise UserError(
            f"{root}: {found}; an image folder holds at least two folders of images, one per class"
        )
    return names


def _class_samples(root: Path, labels: Sequence[str]) -> list[Sample]:
    samples: list[Sample] = []
    for index, label in enumerate(labels):
        files = sorted(p for p in (root / label).rglob("*") if p.suffix.lower() in SUFFIXES)
        if len(files) < 2:
            raise UserError(
                f"{root / label}: {len(files)} images, at least 2 are needed "
                f"({', '.join(suffix[1:] for suffix in SUFFIXES)})"
            )
        samples += [(file, index) for file in files]
    return samples


def _split(samples: Sequence[Sample]) -> tuple[list[Sample], list[Sample]]:
    from sklearn.model_selection import train_test_split

    classes = [label for _, label in samples]
    held_out = max(len(set(classes)), round(HELD_OUT * len(samples)))
    train, val = train_test_split(
        list(samples), test_size=held_out, stratify=classes, random_state=SPLIT_SEED
    )
    return train, val
