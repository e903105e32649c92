"""The images that a network trained by other software is calibrated, judged and compared with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from artifact.answering import ONE_CLASS, Answering
from artifact.records import Part, Reading
from core import cli
from core.errors import UserError, spelled
from export.elsewhere import Elsewhere
from export.network import Network
from export.samples import CALIBRATION_IMAGES, photos, spread
from report.format import plural
from training.data import ImageData, Sample, pixel_batches
from training.datasets import DATASETS, data_name, load_data
from training.folder import find_folder
from training.identity import hold_out
from training.look import look
from training.options import FolderLayout, FolderOptions
from training.scan import Scan, find_files, some
from training.thresholds import label_thresholds

_FLAGS = {"--labels": "--image-labels", "--labels-columns": "--image-labels-columns"}
_BATCH = 32  # images at a time, when thresholds are chosen


def layout_of(given: Elsewhere | Reading, *, several: bool) -> FolderLayout:
    """Returns how to read the images of ``--data``, for answers of one class or several labels."""
    return FolderLayout(
        labels=given.image_labels,
        labels_columns=given.image_labels_columns,
        multi_label=several,
    )


def load_images(data: str | None, layout: FolderLayout) -> ImageData | None:
    """Returns the images of ``--data``, in parts; None without data.

    They are labelled by folders or by a CSV file. Where images have several labels and there is no
    such file, their labels are not known, and all images below the folder are taken.

    Args:
        data: data set by name, or folder.
        layout: how to read a folder.

    Raises:
        UserError: as :func:`training.datasets.load_data`; a CSV file without data.
    """
    if data is None:
        if layout.labels is not None or layout.labels_columns:
            flag = "--image-labels" if layout.labels is not None else "--image-labels-columns"
            raise UserError(f"{flag} is of the images of --data FOLDER, and none is given")
        return None
    if layout.labels is None and layout.labels_columns:
        raise UserError("--image-labels-columns are those of --image-labels FILE: name it")
    if layout.multi_label and layout.labels is None:
        return load_data(data) if data in DATASETS else _without_labels(data)
    options = FolderOptions(
        labels=layout.labels,
        labels_columns=layout.labels_columns,
        multi_label=layout.multi_label,
        skip_unreadable=True,  # as nothing is learned: both are told
        allow_duplicates=True,
    )
    with spelled(_FLAGS):
        return load_data(data, options)


def _without_labels(data: str) -> ImageData:
    """Returns all images below a folder, a fifth of them held out, with no label that is known."""
    folder, scan = find_folder(data, DATASETS), Scan()
    try:
        samples: list[Sample] = [(file, 0) for file in find_files(folder, scan)]
    except OSError as error:
        raise UserError(f"{error.filename}: cannot be listed ({error.strerror})") from error
    found = ImageData(
        name=data_name(data), labels=(), train=samples, val=(), folder=data, scan=scan
    )
    found = look(found, FolderOptions(), refuse=False)
    train, held_out = hold_out(found.train, found.digests)
    if not train:
        raise UserError(
            f"{data}: it holds {plural(len(held_out), 'different image')}, and two are needed at "
            "least: to calibrate int8, and to compare with"
        )
    return replace(found, train=train, val=held_out)


def answering_for(labels: tuple[str, ...], *, several: bool) -> Answering:
    """Returns how logits become an answer: of several labels, all with a score above a half."""
    return Answering(task="multi", thresholds=(0.5,) * len(labels)) if several else ONE_CLASS


def with_images(
    network: Network, images: ImageData | None, data: str | None, *, choose: bool = True
) -> Network:
    """Returns ``network`` with images for calibration and verification.

    Args:
        network: the network.
        images: what :func:`load_images` returned.
        data: what it was loaded by.
        choose: whether thresholds of several labels are chosen by the images that are not held out.

    Raises:
        UserError: ``images`` have classes that the network does not have.
    """
    if images is None:
        cli.notes().print(
            "note: without data, photos without labels stand in: int8 is calibrated on them, and "
            "no accuracy is measured"
        )
        calibration, held_out = photos()
        return replace(network, calibration=calibration, held_out=held_out)
    index = {label: number for number, label in enumerate(network.labels)}
    if strange := [label for label in images.labels if label not in index]:
        what = ("label", "labels") if images.combinations else ("class", "classes")
        are = "that is" if len(strange) == 1 else "that are"
        raise UserError(
            f"{data} has {plural(len(strange), *what)} {are} not among the network's, such as "
            f"{', '.join(strange[:3])}; name them as in --labels: "
            f"{', '.join(network.labels[:3])}, ..."
        )
    several = network.answering.task == "multi"
    classes = [index[label] for label in images.labels]
    combinations = tuple(
        tuple(sorted(classes[each] for each in together)) for together in images.combinations
    )
    network = replace(
        network, combinations=combinations, labelled=not several or bool(combinations)
    )
    everything = images.train
    images = look(
        replace(images, train=spread(everything, CALIBRATION_IMAGES)), FolderOptions(), refuse=False
    )
    _tell(network, images)
    if combinations and choose:
        network = _with_thresholds(network, everything, images.name)

    def ours(samples: Sequence[Sample]) -> list[Sample]:
        if several:
            return list(samples)
        return [(image, classes[label]) for image, label in samples]

    part: Part = "test" if images.test else "held-out"
    return replace(
        network,
        calibration=ours(images.train),
        held_out=ours(images.test or images.val),
        part=part,
    )


def _tell(network: Network, images: ImageData) -> None:
    """Prints how images were read, and what they are for."""
    known = (
        f"accuracy is measured on {images.name}; whether the network was trained on some of its "
        "images is not known"
    )
    if not network.labelled:
        known = (
            f"the labels of the images of {images.name} are not known, so no accuracy is measured, "
            "and every threshold is 0.5; a CSV file that has them is named by --image-labels FILE"
        )
    for line in (*images.scan.lines(), f"note: {known}"):
        cli.notes().print(line, soft_wrap=True, markup=False)


@torch.inference_mode()
def _with_thresholds(network: Network, samples: Sequence[Sample], name: str) -> Network:
    """Returns ``network`` with the threshold of the best F1 of each label on ``samples``."""
    outputs = [
        (network.module(torch.from_numpy(pixels)).numpy(), network.targets(indices))
        for pixels, indices in pixel_batches(samples, network.preprocess, size=_BATCH)
    ]
    logits, truth = map(np.concatenate, zip(*outputs, strict=True))
    scores = network.answering.scores(logits)
    thresholds, _ = label_thresholds(scores, truth, network.labels, precision=None)
    counts = truth.sum(axis=0).tolist()
    lacking = [label for label, had in zip(network.labels, counts, strict=True) if not had]
    also = f"; 0.5 for {some(lacking)}, which none of them has" if lacking else ""
    cli.notes().print(
        f"note: each label's threshold is that of its best F1 on {plural(len(samples), 'image')} "
        f"of {name}, others than those of the figures{also}",
        soft_wrap=True,
        markup=False,
    )
    answering = replace(network.answering, thresholds=thresholds)
    return replace(network, answering=answering)
