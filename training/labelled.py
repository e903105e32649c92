"""Labelled images to judge a finished network by: what a data set holds out, or a whole folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from training.data import Sample
from training.datasets import DATASETS, load_named
from training.folder import find_classes, find_folder
from training.options import FolderLayout
from training.scan import Scan

_PARTS = {"test": "test images", "val": "validation images", "train": "images"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """Images whose class is known.

    Attributes:
        data: name of the data set, or path of the folder.
        part: which images of it these are, in words.
        labels: class names, in the order of the class indices.
        samples: the images, not looked at yet.
        scan: what was noticed while a folder was read.
    """

    data: str
    part: str
    labels: tuple[str, ...]
    samples: Sequence[Sample]
    scan: Scan = field(default_factory=Scan)


def load_labelled(data: str, layout: FolderLayout | None = None) -> Labelled:
    """Returns the images that a network may be judged by.

    Of a data set that has a name they are those it holds out. Of a folder they are its test
    folder, else its validation folder, else all its images. Nothing is read of the files yet.

    Args:
        data: name or path.
        layout: how a folder is read.

    Raises:
        UserError: neither a known name nor a folder, a folder without labelled images, ``layout``
            for a data set that has a name, or a data set that cannot be fetched.
    """
    layout = layout or FolderLayout()
    if data in DATASETS:
        images = load_named(data, layout)
        samples = images.test or images.val
        return Labelled(data=data, part="held-out images", labels=images.labels, samples=samples)
    scan = Scan()
    parts = find_classes(find_folder(data, DATASETS), layout, scan, least=1)
    part, classes = next((role, parts[role]) for role in ("test", "val", "train") if role in parts)
    scan.notes.clear()  # they say what would be learned from
    return Labelled(
        data=data,
        part=_PARTS[part],
        labels=tuple(classes),
        samples=[(file, index) for index, files in enumerate(classes.values()) for file in files],
        scan=scan,
    )
