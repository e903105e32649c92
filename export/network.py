"""The network to export, with the images that verify its artifacts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from torch import nn

from artifact.answering import ONE_CLASS, Answering, Sets
from artifact.records import Abstention, Part, Reading, Reference, Source, Weights
from core import cli
from core.errors import UserError
from core.files import sha256
from core.image_size import Size, size_text
from core.names import canonical_name
from core.preprocess import Preprocess, Truncated
from export.quantization.qdq import LearnedInt8
from export.random_weights import RANDOM_SEED, random_module
from export.samples import CALIBRATION_IMAGES, photos, spread
from models.channels import adapted_imagenet
from models.imagenet import ImageNetWeights, WeightsUnavailable
from models.input_size import check_input_size
from models.registry import find_model
from models.weights import imagenet_classifier, load_imagenet_weights
from training.checkpoint import Checkpoint, checkpoint_path, load_checkpoint, run_folder
from training.data import Combinations, ImageData, Sample, label_sets
from training.datasets import data_name, load_data
from training.identity import unseen
from training.look import look
from training.scan import some
from training.summary.confusion import chance

WeightsChoice = Literal["auto", "imagenet", "random"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """A torch network in evaluation mode, with everything needed to export it.

    Attributes:
        model: registry name.
        data: second part of the artifacts' folder name: a data set, ``imagenet`` or ``random``,
            and the image size if it is not the native one.
        weights: kind of the weights.
        module: uint8 (N, H, W, 3) -> float32 (N, C); artifacts are compared with it.
        labels: class names, in the order of the logits.
        preprocess: how an image becomes pixels.
        source: exact origin of the weights.
        calibration: images for int8 calibration; disjoint from ``held_out``.
        held_out: labelled images that it was not trained on, or unlabelled ones.
        labelled: whether the labels of ``held_out`` are valid.
        part: which part of the data ``held_out`` is.
        truncated: whether truncated images are accepted, as in training.
        learned: the int8 form, if a run trained it.
        answering: how logits become an answer.
        combinations: if images may have several labels, those that occur together, of which the
            samples' indices are.
        abstention: when the most likely class is no answer.
        graph: the float32 ONNX ``ModelProto`` with the same input and output, if it was given
            instead of being exported from the module, or comes from an exported program with a
            fixed batch size.
        run: the run that trained it, without its weights; None for others.
    """

    model: str
    data: str
    weights: Weights
    module: nn.Module
    labels: tuple[str, ...]
    preprocess: Preprocess
    source: Source
    calibration: Sequence[Sample]
    held_out: Sequence[Sample]
    labelled: bool
    truncated: Truncated = "refuse"
    learned: LearnedInt8 | None = None
    graph: Any = None
    run: Checkpoint | None = None
    answering: Answering = ONE_CLASS
    combinations: Combinations = ()
    abstention: Abstention | None = None
    part: Part = "held-out"

    def targets(self, indices: npt.NDArray[np.int64]) -> Sets:
        """Returns bool (N, C): whether images have each label, by the samples' indices (N,)."""
        return label_sets(indices, self.combinations, len(self.labels))

    @property
    def reference(self) -> Reference:
        """Returns what runs the module: torch, or ONNX Runtime for a given graph."""
        reading = self.source.reading
        return "onnx" if reading is not None and reading.graph else "torch"

    @property
    def foreign(self) -> bool:
        """Returns whether its weights were trained by other software, not by a run here."""
        return self.source.reading is not None or self.source.checkpoint is None


def load_network(
    model: str,
    data: str | None,
    weights: WeightsChoice = "auto",
    size: Size | None = None,
    channels: int | None = None,
    fold: str | None = None,
) -> Network:
    """Returns a network to export: the run on ``data``, or ImageNet or random weights.

    Args:
        model: registry name or alias.
        data: data set or folder it was trained on; None for published or random weights.
        weights: ``auto`` uses the run on ``data``, or ImageNet weights if ``data`` is None.
        size: of the input images, in pixels; None for the size of training, or the native one.
        channels: of the input images, 1 to 4; None for those of training, or RGB.
        fold: the fold that the run on ``data`` held out, ``2of5``; None for a run without folds.

    Raises:
        UserError: unknown network, no such run, a size or channels that it does not take, or
            weights that are not available. Random weights are never used as a fallback.
    """
    find_model(model)
    model = canonical_name(model)
    if weights == "random":
        return _random(model, size, 3 if channels is None else channels)
    if weights == "imagenet" or data is None:
        return _imagenet(model, size, channels)
    return _trained(model, data, size, channels, fold)


def _trained(
    model: str, data: str, size: Size | None, channels: int | None, fold: str | None
) -> Network:
    suffix = f"-fold{fold}" if fold else ""
    path = checkpoint_path(run_folder(model, data_name(data) + suffix))
    if not path.is_file():
        folds = path.parent.with_name(f"{path.parent.name}-fold*")
        there = sorted(each.name.rpartition("-fold")[2] for each in Path("runs").glob(folds.name))
        if there and not fold:
            raise UserError(
                f"no run of {model} on {data} without folds: {path} is not there; --fold "
                f"{there[0]} exports that of a fold ({some(there)})"
            )
        raise UserError(
            f"no run of {model} on {data}: {path} is not there; make train MODEL={model} "
            f"DATA={data}, or WEIGHTS=imagenet, or, for latency only, WEIGHTS=random"
        )
    checkpoint = load_checkpoint(path)
    single = checkpoint.task == "single"
    if single and (words := chance(checkpoint.confusion.numpy())):
        cli.notes().print(f"warning: {path}: {words}", soft_wrap=True)
    images = load_data(data, checkpoint.options)
    if images.labels != checkpoint.labels:
        raise UserError(
            f"{path} knows the classes {', '.join(checkpoint.labels)}, but {data} holds "
            f"{', '.join(images.labels)}; train again"
        )
    preprocess = checkpoint.preprocess if size is None else checkpoint.preprocess.at(size)
    if channels not in (None, preprocess.channels):
        raise UserError(
            f"--channels {channels}: the run of {model} on {data} is of images of "
            f"{preprocess.channels} channels; leave it out"
        )
    check_input_size(model, preprocess.crop, classes=len(checkpoint.labels))
    calibration = spread(images.train, CALIBRATION_IMAGES)
    images = look(replace(images, train=calibration), checkpoint.options, refuse=False)
    return Network(
        model=model,
        # Published weights use the name "imagenet".
        data=_filed(
            "imagenet_run" if images.name == "imagenet" else images.name,
            checkpoint.preprocess,
            preprocess,
        ),
        weights="trained",
        module=checkpoint.network(),
        labels=checkpoint.labels,
        preprocess=preprocess,
        source=Source(
            origin=f"trained on {images.name}",
            checkpoint=str(path),
            sha256=sha256(path),
            data=data,
            fold=fold,
        ),
        calibration=images.train,
        held_out=_held_out(images, checkpoint, path),
        labelled=True,
        truncated=checkpoint.recipe.get("truncated", "refuse"),
        run=replace(checkpoint, state_dict={}),
        answering=Answering(task=checkpoint.task, thresholds=checkpoint.thresholds),
        combinations=images.combinations,
        abstention=Abstention(**asdict(checkpoint.abstention)) if checkpoint.abstention else None,
        part="test" if images.test else "held-out",
    )


def _held_out(images: ImageData, checkpoint: Checkpoint, path: Path) -> Sequence[Sample]:
    """Returns the images for the final figures, without those that were trained on.

    If a folder changed after training, images trained on may be among the held-out ones now.

    Raises:
        UserError: no image is left.
    """
    held_out = images.test or images.val
    if checkpoint.trained_on is None:
        _note(
            f"{path} was written by an earlier version and does not say which images it was "
            f"trained on: some of the {len(held_out):,} held-out ones may be among them"
        )
        return held_out
    left = unseen(held_out, images.digests, checkpoint.trained_on)
    if not left:
        raise UserError(
            f"{path} was trained on all of the {len(held_out):,} held-out images; train again"
        )
    if count := len(held_out) - len(left):
        _note(
            f"{count:,} of {len(held_out):,} held-out images are not used, as {path} was trained "
            "on them"
        )
    return left


def _filed(data: str, own: Preprocess, preprocess: Preprocess) -> str:
    """Returns the second part of the folder name, with channels and size if others than its own."""
    if preprocess.channels != own.channels:
        data += f"-{preprocess.channels}ch"
    return data if preprocess.crop == own.crop else f"{data}-{size_text(preprocess.crop)}"


def _note(text: str) -> None:
    cli.notes().print(f"note: {text}", soft_wrap=True, markup=False)


def _imagenet(model: str, size: Size | None, channels: int | None) -> Network:
    try:
        published = load_imagenet_weights(model)
        channels = published.preprocess.channels if channels is None else channels
        weights, assumed = adapted_imagenet(model, published, channels)
        module = imagenet_classifier(model, weights, size=size).eval()
    except WeightsUnavailable as error:
        raise UserError(
            f"no run is given, and {error}; train it (make train MODEL={model} DATA=digits, then "
            f"make export MODEL={model} DATA=digits), or, for latency only, "
            f"make export MODEL={model} WEIGHTS=random"
        ) from None
    preprocess = weights.preprocess if size is None else weights.preprocess.at(size)
    check_input_size(
        model, preprocess.crop, classes=len(weights.labels), resized=True, channels=channels
    )
    calibration, held_out = photos()
    reading = _adapted_reading(weights, assumed, size) if assumed else None
    return Network(
        model=model,
        data=_filed("imagenet", published.preprocess, preprocess),
        weights="imagenet",
        module=module,
        labels=weights.labels,
        preprocess=preprocess,
        source=Source(origin=weights.origin, reading=reading),
        calibration=calibration,
        held_out=held_out,
        labelled=False,
    )


def _adapted_reading(
    weights: ImageNetWeights, assumed: tuple[str, ...], size: Size | None
) -> Reading:
    """Returns how published weights were adapted to other channels, for the manifest."""
    for each in assumed:
        cli.notes().print(f"assumed: {each}", soft_wrap=True, markup=False)
    flags = ["--weights", "imagenet", "--channels", str(weights.preprocess.channels)]
    if size is not None:
        flags += ["--size", size_text(size)]
    return Reading(
        entry="", mean=weights.mean, std=weights.std, assumed=assumed, flags=tuple(flags)
    )


def _random(model: str, size: Size | None, channels: int) -> Network:
    native = find_model(model).native_size
    designed = Preprocess(resize=8, crop=7).at(native)
    preprocess = replace(designed if size is None else designed.at(size), channels=channels)
    check_input_size(model, preprocess.crop, resized=True, channels=channels)
    module = random_module(model, preprocess)
    calibration, held_out = photos()
    return Network(
        model=model,
        data=_filed("random", designed, preprocess),
        weights="random",
        module=module,
        labels=tuple(f"class {index}" for index in range(1000)),
        preprocess=preprocess,
        source=Source(origin=f"random weights, seed {RANDOM_SEED}"),
        calibration=calibration,
        held_out=held_out,
        labelled=False,
    )
