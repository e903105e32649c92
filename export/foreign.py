"""Loads a network trained by other software, and what must be known to use it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from artifact.answering import Answering
from artifact.artifact import ARTIFACTS, Artifact
from artifact.records import Reading, Source
from artifact.validation import ArtifactError
from core import cli
from core.errors import UserError
from core.files import sha256
from core.image_size import Size, sides, size_of, size_text
from core.names import canonical_name
from core.preprocess import Preprocess
from export.class_names import IMAGENET, class_names, distinct
from export.elsewhere import Elsewhere
from export.foreign_form import foreign_form, known_form
from export.foreign_graph import GivenGraph, read_graph
from export.foreign_images import answering_for, layout_of, load_images, with_images
from export.foreign_program import read_program
from export.foreign_reference import read_given, with_logits
from export.hub import fetch, is_on_hub
from export.network import Network
from export.rebuild import check_source, rebuild
from models.channels import adaptation, adapted_form, normalisation
from models.classifier import Classifier
from models.fit_weights import Fitted, channels_in, fit_weights
from models.imagenet import imagenet_labels
from models.input_size import check_input_size
from models.registry import find_model
from models.saved_weights import read_weights
from training.checkpoint import KEY
from training.data import ImageData
from training.datasets import DATASETS, TAKEN
from training.folder import folder_name

_ENDINGS = re.compile(r"(\.(pth|pt|tar|ckpt|safetensors|bin|onnx|pt2))+$", re.IGNORECASE)


def load_foreign(model: str, data: str | None, elsewhere: Elsewhere) -> Network:
    """Returns the network whose weights, ONNX graph or program of torch ``elsewhere`` names.

    Assumptions are printed, and recorded in :attr:`Network.source`.

    Args:
        model: registry name or alias; for a graph or a program, any name.
        data: data set or folder for calibration and verification; None for unlabelled photos.
        elsewhere: the file, and how to read it.

    Raises:
        UserError: the file cannot be read or does not fit, or required information is missing.
    """
    elsewhere.check()
    if elsewhere.checkpoint is None:
        return _load_whole(model, data, elsewhere)
    find_model(model)
    model, path = canonical_name(model), elsewhere.checkpoint
    hub = fetch(path) if is_on_hub(path) else None
    path = hub.path if hub else path
    saved = read_weights(path)
    if KEY in saved.groups:
        raise UserError(
            f"{path}: a checkpoint of this project, which knows its data and preprocessing; export "
            f"the run it is in: make export MODEL={model} DATA=..."
        )
    digest = sha256(path)
    name = _name(path, elsewhere.name or (hub.name if hub else None))
    known, origin = known_form(model, saved)
    if hub and hub.form:
        known, origin = hub.form, f"config.json of {elsewhere.checkpoint} has it"
    own = channels_in(model, saved, elsewhere.entry)
    channels = elsewhere.channels or own
    adaptations = [adaptation(channels)] if own == 3 != channels else []
    if adaptations and known and known.preprocess.channels == own:
        known = adapted_form(known, channels)
        origin += f", with mean and std of RGB {normalisation(channels)}"
    form = foreign_form(elsewhere, known, origin, f"for {model} in {path}", channels)
    size = form.published.preprocess.crop
    fitted = fit_weights(model, saved, elsewhere.entry, size, channels)
    check_input_size(model, size, classes=fitted.classes, resized=True, channels=channels)
    several = elsewhere.multi_label
    images = load_images(data, layout_of(elsewhere, several=several))
    published = hub.labels if hub else ()
    labels, assumed_labels = _labels(elsewhere, fitted.classes, path, images, published)
    _, mean, std = form.published
    reading = Reading(
        entry=fitted.place.entry,
        mean=mean,
        std=std,
        assumed=(*_assumed_place(fitted), *adaptations, *form.assumed, *assumed_labels),
        flags=elsewhere.flags,
        image_labels=elsewhere.image_labels,
        image_labels_columns=elsewhere.image_labels_columns,
    )
    preprocess = form.published.preprocess
    _check_free(f"{model}-{name}", path, digest, reading, preprocess, labels, several=several)
    network = Network(
        model=model,
        data=name,
        weights="trained",
        module=Classifier(fitted.network, mean=mean, std=std).eval(),
        labels=labels,
        preprocess=preprocess,
        source=_source(f"weights of {path.name}", path, digest, images, reading),
        calibration=(),
        held_out=(),
        labelled=images is not None,
        answering=answering_for(labels, several=several),
    )
    return with_images(network, images, data)


def _load_whole(model: str, data: str | None, elsewhere: Elsewhere) -> Network:
    """Returns the network that an ONNX graph, or a program of torch, is as it was given."""
    if not re.fullmatch(r"\w[\w.-]*", model):
        raise UserError(f"--model {model!r}: take letters, digits, dots, hyphens and underscores")
    path, program = elsewhere.file, elsewhere.program is not None
    assert path is not None
    graph = read_program(path) if program else read_graph(path)
    size = _size_of(graph, elsewhere.size)
    if elsewhere.channels not in (None, graph.channels):
        raise UserError(
            f"--channels {elsewhere.channels}: {path} takes images of {graph.channels} channels"
        )
    digest = sha256(path)
    name = _name(path, elsewhere.name)
    form = foreign_form(replace(elsewhere, size=size), None, "", f"for {path}", graph.channels)
    several = graph.sigmoid or elsewhere.multi_label
    images = load_images(data, layout_of(elsewhere, several=several))
    labels, assumed_labels = _labels(elsewhere, graph.classes, path, images)
    preprocess, mean, std = form.published
    given = with_logits(graph, preprocess.crop, mean, std)
    assumed = [
        f"{path} gives probabilities, and their logarithm are the logits"
    ] * given.probabilities
    if graph.softmax:
        assumed.append(f"the logits are what the Softmax at the end of {path} is given")
    if graph.sigmoid:
        assumed.append(
            f"an image has any number of labels, and their logits are what the Sigmoid at the end "
            f"of {path} is given"
        )
    reading = Reading(
        entry="",
        mean=mean,
        std=std,
        assumed=(*assumed, *form.assumed, *assumed_labels),
        flags=elsewhere.flags,
        graph=not program,
        program=program,
        image_labels=elsewhere.image_labels,
        image_labels_columns=elsewhere.image_labels_columns,
    )
    _check_free(f"{model}-{name}", path, digest, reading, preprocess, labels, several=several)
    kind = "program" if program else "graph"
    network = Network(
        model=model,
        data=name,
        weights="trained",
        module=given.module,
        labels=labels,
        preprocess=preprocess,
        source=_source(f"the {kind} {path.name}", path, digest, images, reading),
        calibration=(),
        held_out=(),
        labelled=images is not None,
        graph=given.contract(preprocess.crop, mean, std),
        answering=answering_for(labels, several=several),
    )
    return with_images(network, images, data)


def _size_of(graph: GivenGraph, given: Size | None) -> Size | None:
    """Returns the size of the images of a graph; None where it is free and not given.

    Raises:
        UserError: the given size is not that of the graph.
    """
    own = graph.sides
    if given is None:
        return None if own[0] is None or own[1] is None else size_of(own[0], own[1])
    if any(fixed not in (None, side) for fixed, side in zip(own, sides(given), strict=True)):
        takes = "x".join("any" if side is None else str(side) for side in own)
        raise UserError(
            f"--size {size_text(given)}: {graph.path} takes images of {takes} pixels only"
        )
    return given


def load_foreign_again(artifact: Artifact, data: str | None) -> Network:
    """Returns the network that ``artifact`` was made from, with its images.

    Args:
        artifact: an artifact with :attr:`Source.reading`.
        data: data set or folder; None for the one it was verified on.

    Raises:
        UserError: its file or its data are missing, or the file has changed.
    """
    data, reading = data or artifact.source.data, artifact.source.reading
    assert reading is not None
    images = load_images(data, layout_of(reading, several=artifact.task == "multi"))
    module, graph = None, None
    if reading.graph or reading.program:
        size = artifact.preprocess.crop
        given = read_given(check_source(artifact), size, reading)
        module, graph = given.module, given.contract(size, reading.mean, reading.std)
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
        answering=Answering(task=artifact.task, thresholds=artifact.thresholds),
    )
    return with_images(network, images, data, choose=False)


def _source(
    origin: str, path: Path, digest: str, images: ImageData | None, reading: Reading
) -> Source:
    for assumed in reading.assumed:
        cli.notes().print(f"assumed: {assumed}", soft_wrap=True, markup=False)
    data = images.origin if images else None
    return Source(origin=origin, checkpoint=str(path), sha256=digest, data=data, reading=reading)


def _name(path: Path, given: str | None) -> str:
    """Returns the second part of the artifacts' folder name."""
    if given is not None and not re.fullmatch(r"\w[\w.-]*", given):
        raise UserError(f"--name {given!r}: take letters, digits, dots, hyphens and underscores")
    name = given or folder_name(Path(_ENDINGS.sub("", path.name)))
    if name.casefold() in (*DATASETS, *TAKEN):
        raise UserError(
            f"the name {name} is taken by what this project trains or fetches; file the artifacts "
            "under another by --name"
        )
    return name


def _check_free(
    folder: str,
    path: Path,
    digest: str,
    reading: Reading,
    preprocess: Preprocess,
    labels: tuple[str, ...],
    *,
    several: bool,
) -> None:
    """Raises UserError if ``folder`` has artifacts of other weights, or of these read otherwise."""
    for each in sorted((ARTIFACTS / folder).glob("*/manifest.json")):
        try:
            artifact = Artifact.load(each.parent)
        except ArtifactError:  # damaged: as good as none
            continue
        source = artifact.source
        if source.sha256 != digest:  # whatever its path: best.pth is written again in training
            of = source.checkpoint or source.origin
            of = f"an earlier {path}" if of == str(path) else of
            what = f"of other weights ({of})"
        elif (artifact.task == "multi") != several:
            what = "of the same file, read with" + ("out" if several else "") + " --multi-label"
        elif differing := _differing(artifact, reading, preprocess, labels):
            what = f"of the same file, read otherwise ({differing})"
        else:
            continue
        raise UserError(
            f"{each.parent} is {what}; file those of this file under another name by --name, or "
            f"remove {ARTIFACTS / folder}"
        )


def _differing(
    artifact: Artifact, reading: Reading, preprocess: Preprocess, labels: tuple[str, ...]
) -> str:
    """Returns in words the first flag that an artifact was made with otherwise; empty if none."""
    if artifact.source.reading is None:
        return ""
    before = _flags(artifact.source.reading, artifact.preprocess)
    now = _flags(reading, preprocess)
    for flag in now:
        if before[flag] != now[flag]:
            return f"{flag} {before[flag]}, not {now[flag]}"
    for index, (old, new) in enumerate(zip(artifact.labels, labels, strict=True)):
        if old != new:
            return f"--labels with class {index} as {old!r}, not {new!r}"
    return ""


def _flags(reading: Reading, preprocess: Preprocess) -> dict[str, str]:
    return {
        "--entry": reading.entry or "''",
        "--size": size_text(preprocess.crop),
        "--resize": size_text(preprocess.resize),
        "--interpolation": preprocess.interpolation,
        "--crop-mode": preprocess.crop_mode,
        "--channels": str(preprocess.channels),
        "--mean": " ".join(f"{each:g}" for each in reading.mean),
        "--std": " ".join(f"{each:g}" for each in reading.std),
    }


def _assumed_place(fitted: Fitted) -> list[str]:
    assumed = []
    if fitted.converted:
        assumed.append("keys and shapes are converted as timm does it (checkpoint_filter_fn)")
    if not fitted.others:
        return assumed
    others = ", ".join(other or "the file itself" for other in fitted.others)
    return [*assumed, f"the weights are those of {fitted.place.entry}, not of {others} (--entry)"]


def _labels(
    elsewhere: Elsewhere,
    classes: int,
    path: Path,
    images: ImageData | None,
    published: tuple[str, ...] = (),
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the class names, all different, and the assumptions made about them."""
    names, assumed = _given_labels(elsewhere, classes, path, images, published)
    labels = tuple(distinct(names))
    changed = [(old, new) for old, new in zip(names, labels, strict=True) if old != new]
    if changed:
        first = changed[0][0]
        told = ", ".join(new for old, new in changed if old == first)
        others = len({old for old, _ in changed}) - 1
        more = f", and {others:,} more likewise" if others else ""
        assumed += (
            f"several classes are named {first[:50]!r}, and get their index: {told[:200]}{more} "
            "(correct --labels if that is a mistake)",
        )
    return labels, assumed


def _given_labels(
    elsewhere: Elsewhere,
    classes: int,
    path: Path,
    images: ImageData | None,
    published: tuple[str, ...],
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the class names as they are given, and the assumptions made about them."""
    if elsewhere.labels is not None:
        names = class_names(elsewhere.labels)
        if len(names) != classes:
            raise UserError(
                f"--labels {elsewhere.labels} has {len(names):,} names, but the network in {path} "
                f"tells {classes:,} classes apart; give one name a line in the order of its "
                "outputs, or leave out --labels where the folders of --data name them"
            )
        return names, ()
    if len(published) == classes:
        return published, ("the classes are those of its config.json (--labels)",)
    if images is not None and len(images.labels) == classes and images.task == "single":
        order = f"the classes are those of {images.name}, in its order: {', '.join(images.labels)}"
        return images.labels, (f"{order[:200]} (--labels)",)
    if classes == 1000:
        return imagenet_labels(), (f"the classes are ImageNet's (--labels {IMAGENET})",)
    raise UserError(
        f"nothing names the {classes:,} classes of {path}: pass --labels FILE, one name a line in "
        "the order of the logits (folder names, sorted, where ImageFolder numbered them)"
    )
