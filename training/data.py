"""Labelled images, split into those to learn from and those held out."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote

import numpy as np
from PIL import Image
from rich.console import Console

from core.errors import UserError, closest
from core.preprocess import Pixels, Preprocess, decode
from training.options import FolderOptions
from training.scan import Scan

Sample = tuple[Path | Image.Image, int]

TAKEN = ("random",)  # what artifacts of random weights are filed under; no data set is called so


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageData:
    """A data set: images (decoded, or files to decode) with their class index.

    Attributes:
        name: what runs and artifacts on this data are filed under.
        labels: class names, in the order of the class indices.
        train: samples to learn from.
        val: samples held out: what each epoch is judged by.
        test: samples for the final figures, where the data set has a part for them.
        folder: where it was read from, if it is a folder of the user's.
        scan: what was noticed while it was read.
        digests: of the contents of files that were looked at; see :mod:`training.look`.
    """

    name: str
    labels: tuple[str, ...]
    train: Sequence[Sample]
    val: Sequence[Sample]
    test: Sequence[Sample] = ()
    folder: str | None = None
    scan: Scan = field(default_factory=Scan)
    digests: Mapping[Path, bytes] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, Sequence[Sample]]:
        """Returns the parts it has, by name."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return {name: samples for name, samples in parts.items() if samples}


def data_name(data: str) -> str:
    """Returns what runs on a data set or a folder are filed under.

    Raises:
        UserError: neither a known name nor a folder, or a folder whose name is taken.
    """
    from training.datasets import DATASETS  # here, since these files import ImageData from this one
    from training.folder import folder_name

    if data in DATASETS:
        return data
    folder = _folder(data)
    if not data or not os.path.isdir(folder):
        raise _not_found(data, folder, DATASETS)
    name = folder_name(folder)
    if name.casefold() in (*DATASETS, *TAKEN):
        raise UserError(
            f"{data}: the name {name} is taken, and its run would stand in the same place, runs/"
            f"<model>-{name}; rename it, or link to it: ln -s {quote(str(folder))} my_{name}"
        )
    return name


def load_data(
    data: str, options: FolderOptions | None = None, console: Console | None = None
) -> ImageData:
    """Returns a data set by name, or a folder of images by path.

    The names are those of :data:`training.datasets.DATASETS`; a name means the data set even where
    a folder is called so, and ``./name`` the folder. What a folder must hold stands at
    :func:`training.folder.read_folder`.

    Args:
        data: name or path.
        options: how a folder is read.
        console: where a progress bar is shown if files have to be read; left out, nowhere.

    Raises:
        UserError: what :func:`data_name` raises, a folder that is no data set, options for a
            folder where there is none, or a data set that cannot be fetched.
    """
    from training.datasets import DATASETS
    from training.folder import read_folder

    name = data_name(data)
    if data in DATASETS:
        if options and (options.labels is not None or options.split_folders):
            raise UserError(
                f"{data} has labels and parts of its own; --labels and --split-folders "
                "are for folders"
            )
        return DATASETS[data]()
    images = read_folder(_folder(data), name=name, options=options, console=console)
    return replace(images, folder=data)


def _folder(data: str) -> Path:
    return Path(os.path.expanduser(data))  # not every shell expands the ~ of DATA=~/pets


def open_image(source: Path | Image.Image) -> Image.Image:
    """Returns all pixels of a sample; ImageError names the file that cannot be read."""
    return source if isinstance(source, Image.Image) else decode(source)


def pixels_of(source: Path | Image.Image, preprocess: Preprocess) -> Pixels:
    """Returns uint8 (crop, crop, 3) of a sample, the way a server makes them of its bytes."""
    if isinstance(source, Path):
        source = decode(source, shorter=preprocess.shorter)
    return preprocess(source)


def pixel_batches(
    samples: Sequence[Sample], preprocess: Preprocess, *, size: int
) -> Iterator[tuple[Pixels, np.ndarray[tuple[int], np.dtype[np.int64]]]]:
    """Yields uint8 (n, crop, crop, 3) and int64 (n,) class indices, ``size`` images at a time."""
    for start in range(0, len(samples), size):
        chunk = samples[start : start + size]
        sources, labels = zip(*chunk, strict=True)
        pixels = np.stack([pixels_of(source, preprocess) for source in sources])
        yield pixels, np.array(labels, dtype=np.int64)


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


def _not_found(data: str, path: Path, names: Iterable[str]) -> UserError:
    """Returns what to say of ``data`` that is neither a known name nor a folder."""
    if data and os.path.exists(path):
        return UserError(
            f"{data}: a file, not a folder of images; if it is an archive, unpack it first"
        )
    if path.name == data or not data:
        return UserError(
            f"unknown data {data!r}: neither a folder nor a data set; {closest(data, names)}"
        )
    missing, parent = path.absolute(), path.absolute().parent
    while not os.path.isdir(parent):
        missing, parent = parent, parent.parent
    beside = [entry.name for entry in os.scandir(parent)] if os.access(parent, os.R_OK) else []
    near = difflib.get_close_matches(missing.name, beside, n=1)
    end = f"did you mean {parent / near[0]}?" if near else "check the path"
    return UserError(f"{data}: there is no {missing.name} in {parent}; {end}")
