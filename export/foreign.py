"""A network of somebody else's: its weights in a file, and what has to be known to use them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from artifact.artifact import ARTIFACTS, Artifact
from artifact.records import Reading, Source
from artifact.validation import ArtifactError
from core import cli
from core.errors import UserError, in_words
from core.files import sha256
from core.names import canonical_name
from core.preprocess import Preprocess
from export.class_names import IMAGENET, class_names
from export.elsewhere import Elsewhere
from export.foreign_graph import GivenGraph, GraphReference, contract_graph, read_graph
from export.network import (
    CALIBRATION_IMAGES,
    Network,
    check_source,
    photos,
    rebuild,
    spread,
    stack,
)
from models.classifier import Classifier
from models.fit_weights import Fitted, fit_weights
from models.imagenet import PublishedForm, imagenet_labels
from models.input_size import check_input_size
from models.registry import TIMM, find_model
from models.saved_weights import SavedWeights, read_weights
from training.checkpoint import KEY
from training.data import ImageData, Sample
from training.datasets import DATASETS, TAKEN, load_data
from training.folder import folder_name
from training.look import look
from training.options import FolderOptions

_ENDINGS = re.compile(r"(\.(pth|pt|tar|ckpt|safetensors|bin|onnx))+$", re.IGNORECASE)
_NEARLY_ONE = 1e-3  # a sum of probabilities
_FORM = ("size", "resize", "interpolation", "mean", "std")
_USUAL = (
    "usual are --size 224 --resize 256, --interpolation bilinear (torchvision) or bicubic (timm), "
    "--mean 0.485 0.456 0.406 --std 0.229 0.224 0.225 (ImageNet's) or --mean 0.5 --std 0.5 "
    "(Inception's)"
)
_TIMM_ARGUMENTS = (
    "img_size",
    "input_size",
    "crop_pct",
    "crop_mode",
    "interpolation",
    "mean",
    "std",
)


class _Form(NamedTuple):
    """What is done to an image, and what of it nobody said."""

    published: PublishedForm
    assumed: tuple[str, ...]


def load_foreign(model: str, data: str | None, elsewhere: Elsewhere) -> Network:
    """Returns the network whose weights, or whose ONNX graph, ``elsewhere`` names.

    What was assumed is printed, and stands in :attr:`Network.source`.

    Args:
        model: registry name or alias; of a graph, any name.
        data: data set or folder whose images calibrate and prove it; None: photos without labels.
        elsewhere: the file, and how it is to be read.

    Raises:
        UserError: the file cannot be read or does not fit, or what must be known of it is not.
    """
    if elsewhere.onnx is not None:
        return _load_graph(model, data, elsewhere, elsewhere.onnx)
    find_model(model)
    model, path = canonical_name(model), elsewhere.checkpoint
    assert path is not None
    saved = read_weights(path)
    if KEY in saved.groups:
        raise UserError(
            f"{path}: a checkpoint of this project, which knows its data and preprocessing; export "
            f"the run it is in: make export MODEL={model} DATA=..."
        )
    name = _free_name(model, path, elsewhere.name)
    fitted = fit_weights(model, saved, elsewhere.entry)
    known, origin = _known_form(model, saved)
    form = _form(elsewhere, known, origin, f"for {model} in {path}")
    check_input_size(model, form.published.preprocess.crop, classes=fitted.classes)
    images = load_data(data) if data is not None else None
    labels, assumed_labels = _labels(elsewhere, fitted.classes, path, images)
    _, mean, std = form.published
    reading = Reading(
        entry=fitted.place.entry,
        mean=mean,
        std=std,
        assumed=(*_assumed_place(fitted), *form.assumed, *assumed_labels),
        flags=elsewhere.flags,
    )
    network = Network(
        model=model,
        data=name,
        weights="trained",
        module=Classifier(fitted.network, mean=mean, std=std).eval(),
        labels=labels,
        preprocess=form.published.preprocess,
        source=_source(f"weights of {path.name}", path, images, reading),
        calibration=(),
        held_out=(),
        labelled=images is not None,
    )
    return with_images(network, images, data)


def _load_graph(model: str, data: str | None, elsewhere: Elsewhere, path: Path) -> Network:
    if not re.fullmatch(r"\w[\w.-]*", model):
        raise UserError(f"--model {model!r}: take letters, digits, dots, hyphens and underscores")
    given = read_graph(path)
    if given.size is not None and elsewhere.size not in (None, given.size):
        raise UserError(f"--size {elsewhere.size}: {path} takes images of {given.size} pixels only")
    name = _free_name(model, path, elsewhere.name)
    sized = replace(elsewhere, size=given.size or elsewhere.size)
    form = _form(sized, None, "", f"for {path}")
    images = load_data(data) if data is not None else None
    labels, assumed_labels = _labels(elsewhere, given.classes, path, images)
    preprocess, mean, std = form.published
    given, probabilities = _with_logits(given, preprocess, mean, std)
    assumed = [f"{path} gives probabilities, and their logarithm are the logits"] * probabilities
    if given.softmax:
        assumed.append(f"the logits are what the Softmax at the end of {path} is given")
    reading = Reading(
        entry="",
        mean=mean,
        std=std,
        assumed=(*assumed, *assumed_labels),
        flags=elsewhere.flags,
        graph=True,
    )
    network = Network(
        model=model,
        data=name,
        weights="trained",
        module=GraphReference(given, mean, std),
        labels=labels,
        preprocess=preprocess,
        source=_source(f"the graph {path.name}", path, images, reading),
        calibration=(),
        held_out=(),
        labelled=images is not None,
        graph=contract_graph(given, preprocess.crop, mean, std),
    )
    return with_images(network, images, data)


def _with_logits(
    given: GivenGraph, preprocess: Preprocess, mean: tuple[float, ...], std: tuple[float, ...]
) -> tuple[GivenGraph, bool]:
    """Returns ``given`` with logits at its end, and whether it gave probabilities.

    Raises:
        UserError: ONNX Runtime cannot run it.
    """
    pixels = torch.from_numpy(stack(photos()[0][:4], preprocess))
    try:
        answers = GraphReference(given, mean, std)(pixels).numpy()
    except Exception as error:  # ONNX Runtime's exceptions have no common class
        raise UserError(f"{given.path}: ONNX Runtime cannot run it ({in_words(error)})") from None
    sums = answers.sum(axis=1)
    if answers.min() < 0 or abs(sums - 1).max() > _NEARLY_ONE:
        return given, False
    return given.with_log(), True


def load_foreign_again(artifact: Artifact, data: str | None) -> Network:
    """Returns the network that ``artifact`` was made from, with its images.

    Args:
        artifact: whose :attr:`Source.reading` is known.
        data: data set or folder; None is the one it was proven on.

    Raises:
        UserError: its file or its data are not here, or the file has changed.
    """
    data, reading = data or artifact.source.data, artifact.source.reading
    assert reading is not None
    images = load_data(data) if data is not None else None
    module, graph = None, None
    if reading.graph:
        given = read_graph(check_source(artifact))
        given, _ = _with_logits(given, artifact.preprocess, reading.mean, reading.std)
        module = GraphReference(given, reading.mean, reading.std)
        graph = contract_graph(given, artifact.preprocess.crop, reading.mean, reading.std)
    network = Network(
        model=artifact.model,
        data=artifact.data,
        weights=artifact.weights,
        module=module or rebuild(artifact),
        labels=artifact.labels,
        preprocess=artifact.preprocess,
        source=artifact.source,
        calibration=(),
        held_out=(),
        labelled=images is not None,
        graph=graph,
    )
    return with_images(network, images, data)


def _source(origin: str, path: Path, images: ImageData | None, reading: Reading) -> Source:
    for assumed in reading.assumed:
        cli.notes().print(f"assumed: {assumed}", soft_wrap=True, markup=False)
    data = images.name if images else None
    return Source(
        origin=origin, checkpoint=str(path), sha256=sha256(path), data=data, reading=reading
    )


def _free_name(model: str, path: Path, given: str | None) -> str:
    """Returns what artifacts are filed under, where none of other weights stand."""
    name = _name(path, given)
    _check_free(f"{model}-{name}", path, sha256(path))
    return name


def _name(path: Path, given: str | None) -> str:
    """Returns what artifacts are filed under beside the network."""
    if given is not None and not re.fullmatch(r"\w[\w.-]*", given):
        raise UserError(f"--name {given!r}: take letters, digits, dots, hyphens and underscores")
    name = given or folder_name(Path(_ENDINGS.sub("", path.name)))
    if name.casefold() in (*DATASETS, *TAKEN):
        raise UserError(
            f"the name {name} is taken by what this project trains or fetches; file the artifacts "
            "under another by --name"
        )
    return name


def _check_free(folder: str, path: Path, digest: str) -> None:
    """Raises UserError if artifacts of other weights stand in ``folder``."""
    for each in sorted((ARTIFACTS / folder).glob("*/manifest.json")):
        try:
            source = Artifact.load(each.parent).source
        except ArtifactError:  # damaged: as good as none
            continue
        if source.checkpoint != str(path) and source.sha256 != digest:
            raise UserError(
                f"{each.parent} is of other weights ({source.checkpoint or source.origin}); file "
                "those of this file under another name by --name, or remove that folder"
            )


def _assumed_place(fitted: Fitted) -> list[str]:
    if not fitted.others:
        return []
    others = ", ".join(other or "the file itself" for other in fitted.others)
    return [f"the weights are those of {fitted.place.entry}, not of {others} (--entry)"]


def _form(elsewhere: Elsewhere, known: PublishedForm | None, origin: str, what: str) -> _Form:
    """Returns what is done to an image: as given, else as it is known, by the word of ``origin``.

    Raises:
        UserError: something is neither given nor known of ``what``.
    """
    given = _given_form(elsewhere)
    if known is None:
        if missing := [f"--{name}" for name in _FORM if name not in given]:
            raise UserError(
                f"nothing says how images were prepared {what}: give "
                f"{' '.join(missing)}, as in training; {_USUAL}"
            )
        values: dict[str, Any] = {"crop_mode": "center", **given}
        return _Form(_published(values), ())
    preprocess = known.preprocess
    values = {
        "size": preprocess.crop,
        "resize": preprocess.resize,
        "interpolation": preprocess.interpolation,
        "crop_mode": preprocess.crop_mode,
        "mean": known.mean,
        "std": known.std,
    }
    if "size" in given:  # as large a part of the image as before
        values["resize"] = round(given["size"] * preprocess.resize / preprocess.crop)
    values |= given
    told = [f"{name} {_text(value)}" for name, value in values.items() if name not in given]
    assumed = (f"{', '.join(told)}, as {origin} (--size and so on)",) if told else ()
    return _Form(_published(values), assumed)


def _given_form(elsewhere: Elsewhere) -> dict[str, Any]:
    given = {name: getattr(elsewhere, name) for name in (*_FORM, "crop_mode")}
    given = {name: value for name, value in given.items() if value is not None}
    for name in ("mean", "std"):
        if name not in given:
            continue
        if len(given[name]) not in (1, 3):
            raise UserError(f"--{name} has {len(given[name])} numbers: one, or R, G and B")
        given[name] *= 3 // len(given[name])
        low, high = min(given[name]), max(given[name])
        if not (low >= 0 and high <= 1) or (name == "std" and low == 0):
            raise UserError(
                f"--{name} {_text(given[name])}: of pixels in [0, 1]; divide by 255 what is of "
                "pixels in 0..255"
            )
    return given


def _known_form(model: str, saved: SavedWeights) -> tuple[PublishedForm | None, str]:
    """Returns what the file, else the publisher of weights, says of images, and who says so."""
    arguments, form = saved.arguments, find_model(model).form
    try:
        if {"val_resize_size", "val_crop_size", "interpolation"} <= arguments.keys():
            known = torchvision_reference_form(arguments)
            return known, f"torchvision's training script validated, by the args in {saved.path}"
        if model.startswith(TIMM) and arguments:
            from models.timm_nets import timm_form

            known = timm_form(model.removeprefix(TIMM), _timm_arguments(arguments))
            return known, f"timm validates it, by the args in {saved.path}"
    except (AssertionError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{saved.path}: its args do not say how images are prepared ({in_words(error)})"
        ) from None
    if form is None:
        return None, ""
    publisher = "timm" if model.startswith(TIMM) else "its publisher"
    return form(), f"{publisher} has it for {model}"


def torchvision_reference_form(arguments: dict[str, Any]) -> PublishedForm:
    """Returns how torchvision's references/classification/train.py prepares images to validate."""
    from models.classifier import IMAGENET_MEAN, IMAGENET_STD

    preprocess = Preprocess(
        resize=int(arguments["val_resize_size"]),
        crop=int(arguments["val_crop_size"]),
        interpolation=arguments["interpolation"],
    )
    return PublishedForm(preprocess, IMAGENET_MEAN, IMAGENET_STD)


def _timm_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: arguments.get(name) for name in _TIMM_ARGUMENTS}


def _published(values: dict[str, Any]) -> PublishedForm:
    border = values["crop_mode"] == "border"
    preprocess = Preprocess(
        resize=values["resize"],
        crop=values["size"],
        interpolation=values["interpolation"],
        crop_mode=values["crop_mode"],
        fill=tuple(round(255 * value) for value in values["mean"]) if border else (0, 0, 0),
    )
    return PublishedForm(preprocess, tuple(values["mean"]), tuple(values["std"]))


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(f"{each:.4g}" for each in value)
    return str(value)


def _labels(
    elsewhere: Elsewhere, classes: int, path: Path, images: ImageData | None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the class names, and what was assumed of them."""
    if elsewhere.labels is not None:
        names = class_names(elsewhere.labels)
        if len(names) != classes:
            raise UserError(
                f"--labels {elsewhere.labels} has {len(names):,} names, but the network in {path} "
                f"tells {classes:,} classes apart"
            )
        return names, ()
    if images is not None and len(images.labels) == classes:
        order = f"the classes are those of {images.name}, in its order: {', '.join(images.labels)}"
        return images.labels, (f"{order[:200]} (--labels)",)
    if classes == 1000:
        return imagenet_labels(), (f"the classes are ImageNet's (--labels {IMAGENET})",)
    raise UserError(
        f"nothing names the {classes:,} classes of {path}: pass --labels FILE, one name a line in "
        "the order of the logits (folder names, sorted, where ImageFolder numbered them)"
    )


def with_images(network: Network, images: ImageData | None, data: str | None) -> Network:
    """Returns ``network`` with what calibrates and proves it.

    Raises:
        UserError: ``images`` are of classes that the network does not know.
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
        raise UserError(
            f"{data} has {len(strange)} classes that are not among the labels, such as "
            f"{', '.join(strange[:3])}; name its folders as in --labels: "
            f"{', '.join(network.labels[:3])}, ..."
        )
    cli.notes().print(
        f"note: accuracy is measured on {images.name}; whether the network was trained on some of "
        "its images is not known",
        soft_wrap=True,
        markup=False,
    )
    classes = [index[label] for label in images.labels]
    calibration = spread(images.train, CALIBRATION_IMAGES)
    images = look(replace(images, train=calibration), FolderOptions(), refuse=False)

    def ours(samples: Sequence[Sample]) -> list[Sample]:
        return [(image, classes[label]) for image, label in samples]

    held_out = ours(images.test or images.val)
    return replace(network, calibration=ours(images.train), held_out=held_out)
