"""The functions of ``import pocketnets``; what they need is imported when one is called."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

    from artifact.artifact import Artifact
    from core.preprocess import Preprocess
    from predict.classifier import Classifier
    from predict.evaluation import Evaluation
    from predict.pipeline import Row
    from training.checkpoint import Checkpoint

# ImageNet's; those of models.classifier, which needs torch.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def train(
    model: str,
    data: str | Path,
    *,
    recipe: str | None = None,
    resume: bool = False,
    fresh: bool = False,
    **changes: Any,
) -> Checkpoint:
    """Returns the checkpoint of a run, which then stands in ``runs/<model>-<data>/``.

    >>> checkpoint = pocketnets.train("mobilenet_v3", "path/to/folder", epochs=5)
    >>> checkpoint.metrics["top1"], checkpoint.network()

    Args:
        model: network, by its registry name.
        data: data set by name, or a folder with one folder of images per class.
        recipe: its name; left out, the one for this network and data.
        resume: go on with the unfinished run of the same network, data and recipe.
        fresh: drop such a run; without one of both it is refused.
        changes: fields of the recipe that are to be others, such as ``epochs=3``.

    Raises:
        UserError: no such network, data, recipe or field, images that cannot be used, too few of
            them, or no memory or space.
    """
    import dataclasses

    from core.errors import unknown
    from training.checkpoint import load_checkpoint
    from training.datasets import load_data
    from training.fit import fit
    from training.recipe import Recipe
    from training.recipes import default_recipe, find_recipe

    fields = [field.name for field in dataclasses.fields(Recipe)]
    for name in changes:
        if name not in fields:
            raise unknown("field of a recipe", name, fields)
    named = recipe or default_recipe(model, str(data))
    given = "".join(f", {name}={value!r}" for name, value in changes.items())
    path = fit(
        model,
        load_data(str(data)),
        dataclasses.replace(find_recipe(named, model), **changes),
        recipe_name=named,
        command=f"# in Python: pocketnets.train({model!r}, {str(data)!r}, recipe={named!r}{given})",
        resume=resume,
        fresh=fresh,
    )
    return load_checkpoint(path)


def export(
    network: nn.Module | str,
    *,
    data: str | Path | None = None,
    labels: Sequence[str] | None = None,
    preprocess: Preprocess | None = None,
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    name: str | None = None,
    formats: Sequence[str] = (),
    max_batch: int = 32,
    max_drop: float | None = None,
) -> dict[str, Artifact]:
    """Returns the artifacts of a network, each compared with it on real images before it appears.

    >>> pocketnets.export("mobilenet_v3", data="digits")["onnx-int8"].path
    >>> pocketnets.export(
    ...     module,
    ...     name="leaves",
    ...     labels=["maple", "oak"],
    ...     preprocess=pocketnets.Preprocess(resize=256, crop=224),
    ... )

    They stand in ``artifacts/<model>-<data>/``, and those of a module in
    ``artifacts/<name>-<data>/``, or ``artifacts/<name>-module/`` without data. What was not asked
    for by its own name and cannot be made here, as a library is not installed, is told on stderr.

    Args:
        network: registry name of a network that :func:`train` trained on ``data``, or, without
            data, of one with published weights. Or any torch module in float32: normalised images
            (N, 3, H, W) to logits (N, C). It is copied, and the copy put into evaluation mode.
        data: of a name, what it was trained on. Of a module, labelled images to calibrate int8 and
            to measure accuracy on; without, photos without labels stand in.
        labels: of a module, class names in the order of the logits; left out, those of ``data``.
        preprocess: of a module, how an image becomes pixels, as it was validated.
        mean: of a module, per channel of pixels in [0, 1]: subtracted in its first layer.
        std: likewise: what they are divided by.
        name: of a module, what its artifacts are filed under.
        formats: such as ``("onnx-fp32", "litert-int8")``; ``phone`` stands for all that phones
            run, ``all`` for every one. Left out, the default ones: those that
            ``export.build.DEFAULT_TARGETS`` lists.
        max_batch: largest batch the artifacts take.
        max_drop: most top-1 one may lose against torch, in [0, 1]; left out, 0.001, and 0.01 for
            int8.

    Raises:
        UserError: no such network, run, data or format, what a module needs is not given, or an
            artifact that was asked for and could not be made or missed a limit; the others stand.
    """
    from core import cli
    from core.errors import UserError
    from export.build import DEFAULT_TARGETS, Options, build_artifacts, targets_of
    from export.network import load_network

    targets = targets_of(formats) or DEFAULT_TARGETS
    options = Options(max_batch=max_batch, max_drop=max_drop)
    data = None if data is None else str(data)
    if isinstance(network, str):
        given = {"labels": labels, "preprocess": preprocess, "name": name}
        if wrong := [each for each, value in given.items() if value is not None]:
            raise UserError(f"{wrong[0]} is of a torch module; the run of {network} knows its own")
        found = load_network(network, data)
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
    """Returns an artifact as a function from images to predictions; a context manager.

    >>> with pocketnets.load("artifacts/mobilenet_v3_large-digits/onnx-int8") as classify:
    ...     best = classify("digit.png")  # a path, bytes, a PIL image, uint8 pixels (H, W, 3)
    ...     best.label, best.score, best.top
    ...     classify(["one.jpg", "two.jpg"])  # a list of predictions, in order

    It was checked, and gave its golden batch, before this returns. No torch is loaded.

    Args:
        artifact: its folder.
        runtime: what executes it; left out, what a benchmark picked, else the one that proved it.
        threads: images decoded and inferred at once; left out, one per core.

    Raises:
        UserError: no artifact, a damaged one, or a runtime that is not here.
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
    """Yields what an artifact says of many images, a row each, in order; few are held at a time.

    >>> for row in pocketnets.predict("artifacts/mobilenet_v3_large-digits/onnx-int8", "photos/"):
    ...     print(row.path, row.prediction.label if row.prediction else row.error)

    An image that cannot be classified is a row with its reason. Files that are no images, such as
    a text beside them, are passed over.

    Args:
        artifact: its folder.
        sources: images, folders, patterns, archives, lists of paths and addresses, as
            ``pocketnets predict`` takes them.
        top_k: classes in each prediction; at most all there are.
        runtime: as for :func:`load`.
        threads: likewise.

    Raises:
        UserError: no such artifact, runtime or source; when the first row is asked for.
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
    runtime: str | None = None,
    threads: int | None = None,
) -> Evaluation:
    """Returns what an artifact reaches on labelled images that it did not learn from.

    >>> found = pocketnets.evaluate("artifacts/mobilenet_v3_large-digits/onnx-int8", "digits")
    >>> found.top1, found.images

    Args:
        artifact: its folder.
        data: data set by name, or a folder with one folder of images per class, called as its
            labels.
        against: folder of another artifact, to be compared on the same images.
        include_seen: whether to take the images that it learned from as well.
        runtime: as for :func:`load`.
        threads: likewise.

    Raises:
        UserError: no such artifact, runtime or data, classes that are none of its labels, or no
            image that can be classified.
    """
    from predict.evaluate import evaluate

    return evaluate(
        artifact,
        data,
        against=against,
        include_seen=include_seen,
        runtime=runtime,
        threads=threads,
    )
