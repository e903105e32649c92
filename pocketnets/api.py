"""The functions of ``import pocketnets``, which import their dependencies when called."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from artifact.artifact import Artifact
    from core.preprocess import Preprocess
    from predict.classifier import Classifier
    from predict.evaluation import Evaluation
    from predict.pipeline import Row
    from predict.several import SeveralEvaluation
    from training.checkpoint import Checkpoint
    from training.options import LoggerName

# ImageNet's mean and standard deviation, as in models.classifier, which would import torch.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def train(
    model: str,
    data: str | Path,
    *,
    recipe: str | None = None,
    resume: bool = False,
    fresh: bool = False,
    log: Sequence[LoggerName] = ("tensorboard",),
    **changes: Any,
) -> Checkpoint:
    """Trains a network into ``runs/<model>-<data>/`` and returns its checkpoint.

    >>> checkpoint = pocketnets.train("mobilenet_v3", "path/to/folder", epochs=5)
    >>> checkpoint.metrics["top1"], checkpoint.network()
    >>> pocketnets.train("resnet14", "photos", labels="labels.csv", multi_label=True)

    Args:
        model: network, by its registry name.
        data: data set by name, or a folder with one folder of images per class.
        recipe: recipe, by name; if None, the default for this network and data.
        resume: continue an unfinished run of the same network, data and recipe.
        fresh: discard an unfinished run, or replace a finished one in the end; without ``resume``
            or ``fresh`` a run in the same place is an error.
        log: where figures go besides the run's own files, as ``--log``.
        changes: the flags of ``pocketnets train`` by their names: fields of the recipe, such as
            ``epochs=3``; how a folder is read, such as ``labels="labels.csv"``, ``multi_label``,
            ``group_by`` and ``test_fraction`` (:class:`training.options.FolderOptions`); devices,
            such as ``accelerator="cpu"`` (:class:`training.accelerators.Accelerators`).

    Raises:
        UserError: unknown network, data, recipe or field, unusable or too few images, or not
            enough memory or disk space.
    """
    from core.errors import UserError, spelled
    from pocketnets.options import arguments, asked
    from training.checkpoint import load_checkpoint
    from training.fit import fit
    from training.options import check_restart

    with spelled(arguments()):
        check_restart(resume=resume, fresh=fresh)
        given = asked("train", model, data, recipe, changes)
    options = given["options"]
    if options.folds is not None and options.fold is None:
        raise UserError(
            f"folds is {options.folds}: which one is held out? add fold, or pocketnets."
            "cross_validate trains with each in turn"
        )
    with spelled(arguments()):
        return load_checkpoint(fit(**given, resume=resume, fresh=fresh, log=log))


def cross_validate(
    model: str,
    data: str | Path,
    *,
    folds: int,
    recipe: str | None = None,
    resume: bool = False,
    fresh: bool = False,
    log: Sequence[LoggerName] = ("tensorboard",),
    **changes: Any,
) -> Mapping[str, tuple[float, float]]:
    """Trains with each of ``folds`` parts held out in turn; returns the figures of all runs.

    >>> mean, deviation = pocketnets.cross_validate("resnet14", "photos", folds=5)["top1"]

    The runs are ``runs/<model>-<data>-fold<i>of<k>/``, with a summary in
    ``runs/<model>-<data>-<k>folds/``.

    Args:
        model: as for :func:`train`.
        data: likewise.
        folds: number of parts, at least 2.
        recipe: as for :func:`train`.
        resume: use finished runs of the same recipe and images, and continue an unfinished one.
        fresh: train all again.
        log: as for :func:`train`.
        changes: likewise.

    Returns:
        Mean and standard deviation of each figure, by name.

    Raises:
        UserError: as :func:`train`, or a class with fewer images, or of groups, than parts.
    """
    from core.errors import UserError, spelled
    from pocketnets.options import arguments, asked, call
    from training import cross_validation
    from training.options import check_restart

    if "fold" in changes:
        raise UserError(
            f"fold is {changes['fold']}: pocketnets.train trains with one part held out"
        )
    with spelled(arguments()):
        check_restart(resume=resume, fresh=fresh)
        given = asked("cross_validate", model, data, recipe, {"folds": folds, **changes})
    of_all = given.pop("command")

    def command(fold: int | None) -> str:
        one = {**changes, "folds": folds, "fold": fold}
        return of_all if fold is None else call("train", model, data, given["recipe_name"], one)

    with spelled(arguments()):
        _, spread = cross_validation.cross_validate(
            **given, command=command, resume=resume, fresh=fresh, log=log
        )
    return spread


def export(
    network: nn.Module | str,
    *,
    data: str | Path | None = None,
    labels: Sequence[str] | None = None,
    preprocess: Preprocess | None = None,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    name: str | None = None,
    multi_label: bool = False,
    image_labels: str | Path | None = None,
    formats: Sequence[str] = (),
    max_batch: int = 32,
    max_drop: float | None = None,
    qat: bool = False,
) -> dict[str, Artifact]:
    """Exports a network and returns its artifacts by name, each verified against the network.

    >>> pocketnets.export("mobilenet_v3", data="digits")["onnx-int8"].path
    >>> pocketnets.export(
    ...     module,
    ...     name="leaves",
    ...     labels=["maple", "oak"],
    ...     preprocess=pocketnets.Preprocess(resize=256, crop=224),
    ... )

    They are written to ``artifacts/<model>-<data>/``, those of a module to
    ``artifacts/<name>-<data>/``, or ``artifacts/<name>-module/`` without data. An artifact that is
    not named in ``formats`` and cannot be built here, such as for want of a library, is reported
    on stderr.

    Args:
        network: registry name of a network that :func:`train` trained on ``data``, or, without
            data, of one with published weights. Or any float32 torch module that maps normalised
            images (N, channels, H, W) to logits (N, C); a copy in evaluation mode is exported.
        data: for a name, the data it was trained on. For a module, labelled images for int8
            calibration and accuracy; if None, unlabelled photos are used.
        labels: module only: class names in the order of the logits; if None, those of ``data``.
        preprocess: module only: the preprocessing with which it was validated.
        mean: module only: mean of each channel of pixels in [0, 1], subtracted in its first layer.
        std: module only: standard deviation of each channel, by which its first layer divides.
        name: module only: name of its artifacts.
        multi_label: module only: whether an image has any number of labels, each with the sigmoid
            of its logit as its score, and not one class.
        image_labels: module only: CSV file with the class or the labels of each image in ``data``,
            as :func:`train` takes ``labels``; of several labels it gives mAP and thresholds.
        formats: names such as ``("onnx-fp32", "litert-int8")``; ``phone`` selects all for phones,
            ``all`` every one. If empty, ``export.build.DEFAULT_TARGETS``.
        max_batch: largest batch size of the artifacts.
        max_drop: largest loss of top-1 against torch, in [0, 1]; if None 0.001, for int8 0.01.
        qat: for a name: whether int8 is that of its run with the recipe qat or qat_imagenet.

    Raises:
        UserError: unknown network, run, data or format, a missing argument for a module, or a
            requested artifact could not be built or exceeded a limit; the other artifacts are kept.
    """
    from core import cli
    from core.errors import UserError
    from export.build import DEFAULT_TARGETS, Options, build_artifacts, targets_of
    from export.network import load_network
    from export.trained_int8 import with_learned

    targets = targets_of(formats) or DEFAULT_TARGETS
    options = Options(max_batch=max_batch, max_drop=max_drop)
    data = None if data is None else str(data)
    if isinstance(network, str):
        given = {
            "labels": labels,
            "preprocess": preprocess,
            "name": name,
            "multi_label": multi_label or None,
            "image_labels": image_labels,
        }
        if wrong := [each for each, value in given.items() if value is not None]:
            raise UserError(f"{wrong[0]} is of a torch module; the run of {network} knows its own")
        found = load_network(network, data)
        found = with_learned(found) if qat else found
    else:
        from export.module import network_of

        found = network_of(
            network,
            name=name,
            data=data,
            labels=labels,
            preprocess=preprocess,
            mean=mean,
            std=std,
            multi_label=multi_label,
            image_labels=None if image_labels is None else str(image_labels),
        )
    artifacts, failed = {}, []
    for outcome in build_artifacts(found, targets, options):
        if outcome.artifact:
            artifacts[outcome.target] = outcome.artifact
        elif outcome.failed or outcome.target in formats:
            failed.append(f"{outcome.target}: {outcome.reason}")
        else:
            cli.notes().print(f"{outcome.target}: {outcome.reason}", soft_wrap=True, markup=False)
    if failed:
        raise UserError("; ".join(failed))
    return artifacts


def load(
    artifact: str | Path, *, runtime: str | None = None, threads: int | None = None
) -> Classifier:
    """Loads an artifact as a classifier: a function of images, and a context manager.

    >>> with pocketnets.load("artifacts/mobilenet_v3_large-digits/onnx-int8") as classify:
    ...     best = classify("digit.png")  # a path, bytes, a PIL image, uint8 pixels (H, W, 3)
    ...     best.label, best.score, best.top
    ...     classify(["one.jpg", "two.jpg"])  # a list of predictions, in order

    Its files and its golden batch are checked first. torch is not imported.

    Args:
        artifact: folder of the artifact.
        runtime: runtime, by name; if None, the one that a benchmark picked, or else the one that
            verified the artifact.
        threads: number of images processed concurrently; if None, one per core.

    Raises:
        UserError: no artifact, a damaged one, or an unavailable runtime.
    """
    from predict.classifier import Classifier

    return Classifier.open(artifact, runtime=runtime, threads=threads)


def predict(
    artifact: str | Path,
    *sources: str | Path,
    top_k: int = 5,
    runtime: str | None = None,
    threads: int | None = None,
) -> Iterator[Row]:
    """Classifies many images and yields a row for each, in order; few are in memory at a time.

    >>> for row in pocketnets.predict("artifacts/mobilenet_v3_large-digits/onnx-int8", "photos/"):
    ...     print(row.path, row.prediction.label if row.prediction else row.error)

    An image that cannot be classified gets a row with the reason. Files that are not images, such
    as text files, are skipped.

    Args:
        artifact: folder of the artifact.
        sources: images, folders, patterns, archives, lists of paths, and URLs, as for
            ``pocketnets predict``.
        top_k: number of classes in each prediction, at most that of the labels.
        runtime: as for :func:`load`.
        threads: as for :func:`load`.

    Raises:
        UserError: no such artifact, runtime or source; raised when the first row is requested.
    """
    from predict.pipeline import classify
    from predict.sources import Passed, find_items, find_sources

    with load(artifact, runtime=runtime, threads=threads) as classifier:
        found = find_sources(map(str, sources), classifier.limits.max_bytes)
        for outcome in classify(classifier, find_items(found, Passed()), top_k=top_k):
            yield outcome.row


def evaluate(
    artifact: str | Path,
    data: str | Path,
    *,
    against: str | Path | None = None,
    include_seen: bool = False,
    labels: str | Path | None = None,
    labels_columns: Sequence[str | int] = (),
    split_folders: Sequence[str] = (),
    map: str | Path | None = None,
    runtime: str | None = None,
    threads: int | None = None,
) -> Evaluation | SeveralEvaluation:
    """Evaluates an artifact on labelled images that it was not trained on.

    >>> found = pocketnets.evaluate("artifacts/mobilenet_v3_large-digits/onnx-int8", "digits")
    >>> found.top1, found.images
    >>> pocketnets.evaluate("artifacts/resnet14-films/onnx-int8", "films", labels="labels.csv")

    If the artifact gives an image several labels, it has ``mean_ap`` and other figures instead;
    a folder then needs ``labels``.

    Args:
        artifact: folder of the artifact.
        data: data set by name, or a folder with one folder of images per class, named after the
            labels.
        against: folder of another artifact to compare on the same images.
        include_seen: whether to include the images that it was trained on.
        labels: CSV file with the class, or the labels, of each image of a folder, as for
            :func:`train`.
        labels_columns: its columns of file and labels, by name or by number from 1.
        split_folders: purpose of the folders in ``data``, such as ``["test=final"]``.
        map: CSV file without a header: a class of the data and its label, where their names differ.
        runtime: as for :func:`load`.
        threads: as for :func:`load`.

    Raises:
        UserError: no such artifact, runtime or data, classes that are not among the labels, no
            ``labels`` where they are needed, or no image that can be classified.
    """
    from core.errors import spelled
    from pocketnets.options import layout_names, layout_of
    from predict.evaluate import evaluate
    from predict.matching import read_names

    layout = layout_of(labels=labels, labels_columns=labels_columns, split_folders=split_folders)
    with spelled(layout_names()):
        return evaluate(
            artifact,
            data,
            against=against,
            include_seen=include_seen,
            layout=layout,
            names=read_names(Path(map)) if map is not None else None,
            runtime=runtime,
            threads=threads,
        )
