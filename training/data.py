"""Labelled images, split into training, validation and test samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from core.preprocess import Pixels, Preprocess, Truncated, decode
from core.task import Task
from training.scan import Scan

# An image, and the index of its class, or, if it may have several, of its combination of labels.
Sample = tuple[Path | Image.Image, int]
Combinations = Sequence[tuple[int, ...]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageData:
    """A data set: images (decoded, or files to decode) with their class index.

    Attributes:
        name: name used in the folders of runs and artifacts.
        labels: class names, in the order of the class indices.
        train: training samples.
        val: held-out samples, for validation after each epoch.
        test: samples for the final figures, if the data set has a test part.
        folder: the user's folder it was read from; None for a named data set.
        scan: what was noticed while it was read.
        digests: digests of the files checked so far; see :mod:`training.look`.
        combinations: if an image may have several labels, or none, the indices of those that occur
            together; the samples' indices are of these. Empty if each has one class.
    """

    name: str
    labels: tuple[str, ...]
    train: Sequence[Sample]
    val: Sequence[Sample]
    test: Sequence[Sample] = ()
    folder: str | None = None
    scan: Scan = field(default_factory=Scan)
    digests: Mapping[Path, bytes] = field(default_factory=dict)
    combinations: Combinations = ()

    @property
    def task(self) -> Task:
        """Returns whether an image has one class or any number of labels."""
        return "multi" if self.combinations else "single"

    def classes_of(self, index: int) -> tuple[int, ...]:
        """Returns the indices of the labels of a sample with this index."""
        return self.combinations[index] if self.combinations else (index,)

    def name_of(self, index: int) -> str:
        """Returns the labels of a sample with this index, as a text."""
        return "|".join(self.labels[each] for each in self.classes_of(index))

    def targets(self, samples: Sequence[Sample]) -> npt.NDArray[np.bool_]:
        """Returns bool (N, C): whether each sample has each label."""
        return label_sets(labels_of(samples), self.combinations, len(self.labels))

    @property
    def origin(self) -> str:
        """Returns what it is loaded by: the path of the user's folder, else its name."""
        return self.folder or self.name

    @property
    def parts(self) -> dict[str, Sequence[Sample]]:
        """Returns the parts it has, by name."""
        parts = {"train": self.train, "val": self.val, "test": self.test}
        return {name: samples for name, samples in parts.items() if samples}


def labels_of(samples: Sequence[Sample]) -> npt.NDArray[np.int64]:
    """Returns int64 (N,): the class index of each sample."""
    return np.array([label for _, label in samples], dtype=np.int64)


def label_sets(
    indices: npt.NDArray[np.int64], combinations: Combinations, classes: int
) -> npt.NDArray[np.bool_]:
    """Returns bool (N, C): whether an image has each label.

    Args:
        indices: int64 (N,) of each image: of its class, or of its combination of labels.
        combinations: see :class:`ImageData`.
        classes: number of labels C.
    """
    if not combinations:
        return np.asarray(indices[:, None] == np.arange(classes))
    sets = np.zeros((len(combinations), classes), dtype=np.bool_)
    for number, combination in enumerate(combinations):
        sets[number, list(combination)] = True
    return sets[indices]


def open_image(source: Path | Image.Image, truncated: Truncated = "refuse") -> Image.Image:
    """Returns the full image of a sample; raises ImageError for a file that cannot be read."""
    return source if isinstance(source, Image.Image) else decode(source, truncated=truncated)


def pixels_of(
    source: Path | Image.Image, preprocess: Preprocess, truncated: Truncated = "refuse"
) -> Pixels:
    """Returns uint8 (H, W, 3) of a sample, preprocessed as in a server."""
    if isinstance(source, Path):
        source = decode(source, least=preprocess.least, truncated=truncated, mode=preprocess.mode)
    return preprocess(source)


def pixel_batches(
    samples: Sequence[Sample],
    preprocess: Preprocess,
    *,
    size: int,
    truncated: Truncated = "refuse",
) -> Iterator[tuple[Pixels, np.ndarray[tuple[int], np.dtype[np.int64]]]]:
    """Yields uint8 (n, H, W, 3) and int64 (n,) class indices, ``size`` images at a time."""
    for start in range(0, len(samples), size):
        chunk = samples[start : start + size]
        sources, labels = zip(*chunk, strict=True)
        pixels = np.stack([pixels_of(source, preprocess, truncated) for source in sources])
        yield pixels, np.array(labels, dtype=np.int64)


def sample_photos(count: int, *, seed: int = 0) -> list[Image.Image]:
    """Returns ``count`` random crops, half of them mirrored, of photos in scikit-learn and SciPy.

    They are for networks without a data set: on real photos, activations have natural ranges.
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
