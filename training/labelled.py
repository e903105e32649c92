"""Labelled images for evaluating a network: the held-out ones of a data set, or a whole folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from training.data import Combinations, Sample
from training.datasets import DATASETS, load_named
from training.folder import find_classes, find_folder, find_label_sets
from training.options import FolderLayout
from training.scan import Scan

_PARTS = {"test": "test images", "val": "validation images", "train": "images"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """Labelled images.

    Attributes:
        data: name of the data set, or path of the folder.
        part: a text that says which images of it these are.
        labels: class names, in the order of the class indices.
        samples: the images, not yet checked.
        scan: what was noticed while a folder was read.
        combinations: if an image may have several labels, the indices of those that occur
            together; the samples' indices are of these.
    """

    data: str
    part: str
    labels: tuple[str, ...]
    samples: Sequence[Sample]
    scan: Scan = field(default_factory=Scan)
    combinations: Combinations = ()


def load_labelled(data: str, layout: FolderLayout | None = None) -> Labelled:
    """Returns the images on which to evaluate a network.

    For a named data set these are the held-out images; for a folder those of its test folder, else
    of its validation folder, else all. The files are not read yet.

    Args:
        data: name or path.
        layout: how to read a folder.

    Raises:
        UserError: neither a known name nor a folder, a folder without labelled images, ``layout``
            for a named data set, or a data set that cannot be downloaded.
    """
    layout = layout or FolderLayout()
    if data in DATASETS:
        images = load_named(data, layout)
        samples = images.test or images.val
        return Labelled(data=data, part="held-out images", labels=images.labels, samples=samples)
    scan = Scan()
    if layout.multi_label:
        sets = find_label_sets(find_folder(data, DATASETS), layout, scan, least=1)
        return Labelled(
            data=data,
            part=_PARTS["train"],
            labels=sets.labels,
            samples=sets.samples,
            scan=scan,
            combinations=sets.combinations,
        )
    parts = find_classes(find_folder(data, DATASETS), layout, scan, least=1)
    part, classes = next((role, parts[role]) for role in ("test", "val", "train") if role in parts)
    scan.notes.clear()  # they are about training
    return Labelled(
        data=data,
        part=_PARTS[part],
        labels=tuple(classes),
        samples=[(file, index) for index, files in enumerate(classes.values()) for file in files],
        scan=scan,
    )
