"""Writes the model card of an artifact: Markdown with YAML front matter, as model hubs read it.

The front matter has the fields of huggingface_hub's ``ModelCardData``, with ``model-index``
results. No path of this machine is in it, as a card is made to be shown to others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from artifact.artifact import CARD, Artifact
from core.errors import UserError
from core.files import write_whole
from core.image_size import size_text
from export.card.latency import QuickLatency, quick_latency
from models.published import published_top1
from report.format import millions, ms, percent, plural
from report.markdown import escape, table
from training.recipe import Recipe
from training.summary.confusion import ClassResult, balanced_accuracy, class_results, macro_f1

if TYPE_CHECKING:
    from training.checkpoint import Checkpoint

_ALL = 100  # most classes of which all are listed
_WORST = 20
_ON_HUB = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
    "imagenet": "ILSVRC/imagenet-1k",
    "imagenet_run": "ILSVRC/imagenet-1k",
}
_CLASS_COLUMNS = ("class", "images", "recall", "precision", "F1")
_TASK = "image-classification"


def write_card(artifact: Artifact, run: Checkpoint | None, license: str | None = None) -> Path:
    """Writes the model card into the folder of ``artifact`` and returns its path.

    Args:
        artifact: the artifact, complete in its folder; its latency is measured now.
        run: the run whose weights it has; None for others.
        license: identifier of the licence, such as ``apache-2.0``; None if it was not said.
    """
    results = _results(run) if run else []
    front = yaml.safe_dump(
        front_matter(artifact, results, license), sort_keys=False, allow_unicode=True
    )
    body = "\n".join(_body(artifact, run, results, _latency(artifact), license))
    text = f"---\n{front}---\n\n{body}\n"
    return write_whole(artifact.path / CARD, text.encode(errors="replace"))


def _results(run: Checkpoint) -> list[ClassResult]:
    """Returns the figures of each class on held-out images."""
    if run.task == "single":
        return class_results(run.confusion.numpy(), run.labels)
    return [  # counts: rows are images without and with the label, columns by the answers
        ClassResult(
            index=index,
            label=label,
            images=int(counts[1].sum()),
            right=int(counts[1, 1]),
            predicted=int(counts[:, 1].sum()),
            taken_for=None,
            times=0,
        )
        for index, (label, counts) in enumerate(zip(run.labels, run.confusion.numpy(), strict=True))
    ]


def _accuracy(artifact: Artifact) -> str:
    """Returns what its ``top1`` is the fraction of."""
    return "top-1" if artifact.task == "single" else "images with exactly the right labels"


def front_matter(
    artifact: Artifact, results: Sequence[ClassResult], license: str | None
) -> dict[str, Any]:
    """Returns the metadata of a card, ready for YAML."""
    metrics = []
    if artifact.metrics:
        of = f"{_accuracy(artifact)}: {artifact.name}, {artifact.metrics.images} held-out images"
        metrics.append({"type": "accuracy", "value": round(artifact.metrics.top1, 4), "name": of})
        if (mean_ap := artifact.metrics.mean_ap) is not None:
            of = f"mAP: {artifact.name}, {artifact.metrics.images} held-out images"
            metrics.append({"type": "mAP", "value": round(mean_ap, 4), "name": of})
    if results:
        of = "macro-F1 of the network in torch"
        metrics.append({"type": "f1", "value": round(macro_f1(results), 4), "name": of})
    name = f"{artifact.model}-{artifact.data}"
    evaluated = {
        "task": {"type": _TASK, "name": "Image classification"},
        "dataset": {"type": artifact.data, "name": artifact.data, "split": "held-out"},
        "metrics": metrics,
    }
    hub = _ON_HUB.get(artifact.data) if artifact.weights != "random" else None
    found: dict[str, Any] = {
        "license": license,
        "library_name": "onnx" if artifact.spec.is_graph else None,
        "pipeline_tag": _TASK,
        "tags": [_TASK, "pocketnets", artifact.model, artifact.format, artifact.precision],
        "datasets": [hub] if hub else None,
        "metrics": sorted({each["type"] for each in metrics}) or None,
        "model-index": [{"name": name, "results": [evaluated]}] if metrics else None,
    }
    return {key: value for key, value in found.items() if value is not None}


def _latency(artifact: Artifact) -> QuickLatency | str:
    """Returns the latency here, or why it was not measured."""
    if artifact.unverified:
        return artifact.unverified
    try:
        return quick_latency(artifact)
    except UserError as error:  # no such library here, or a runtime that does not take it
        return str(error)


def _body(
    artifact: Artifact,
    run: Checkpoint | None,
    results: Sequence[ClassResult],
    latency: QuickLatency | str,
    license: str | None,
) -> Iterator[str]:
    size = size_text(artifact.preprocess.crop)
    yield f"# {escape(artifact.model)} on {escape(artifact.data)}, {artifact.name}"
    yield ""
    yield (
        f"An image classifier for {plural(len(artifact.labels), 'class', 'classes')}: the network "
        f"{escape(artifact.model)} with {millions(artifact.parameters)} parameters and "
        f"{millions(artifact.macs)} MACs per image, {artifact.format} in {artifact.precision}. "
        f"It takes uint8 RGB pixels of {size} and answers logits; normalisation is part of it."
        if artifact.preprocess.channels == 3
        else f"An image classifier for {plural(len(artifact.labels), 'class', 'classes')}, "
        f"{artifact.format} in {artifact.precision}. It takes uint8 pixels of {size} in "
        f"{artifact.preprocess.channels} channels and answers logits."
    )
    yield from ("", "## Use", "", "```python", "import pocketnets", "")
    yield 'with pocketnets.load("PATH OF THIS FOLDER") as classify:'
    yield from ('    print(classify("photo.jpg").top)', "```", "")
    yield (
        f"Or any runtime that takes {artifact.spec.model_file}: input `{artifact.input.name}` "
        f"uint8 {_shape(artifact.input.shape)}, output `{artifact.output.name}` float32 "
        f"{_shape(artifact.output.shape)}. `manifest.json` has the preprocessing and the names of "
        "the classes, in the order of the logits."
    )
    yield from ("", "## Data", "", *_data(artifact, run), "")
    yield from ("## Recipe", "", *_recipe(artifact, run), "")
    yield from ("## Figures", "", *_figures(artifact, run, results), "")
    if results:
        yield from ("### Each class", "", *_classes(results), "")
    yield from ("## Latency", "", _measured(latency), "")
    yield from ("## Limits", "", *_limits(artifact, run), "")
    yield from ("## Licence", "", _licence(artifact, license))


def _shape(shape: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, shape))})"


def _data(artifact: Artifact, run: Checkpoint | None) -> Iterator[str]:
    if run is None:
        yield f"Weights: {escape(artifact.source.origin)}."
        return
    learned = "" if run.trained_on is None else f" {plural(len(run.trained_on), 'image')}"
    yield (
        f"Trained on{learned} of {escape(run.data)}; {plural(int(run.metrics['images']), 'image')} "
        "were held out."
    )
    if "test_images" in run.metrics:
        further = plural(int(run.metrics["test_images"]), "image")
        yield f"Further {further} were looked at once, after training."


def _recipe(artifact: Artifact, run: Checkpoint | None) -> Iterator[str]:
    if run is None:
        yield "The weights were not trained by a run of this package that the export knows."
        return
    known = {each.name: each.default for each in fields(Recipe)}
    rows = [
        (f"`{name}`", escape(_value(name, value)))
        for name, value in run.recipe.items()
        if name in known and (known[name] is MISSING or known[name] != value)
    ]
    yield "Fields that are not at their defaults:"
    yield ""
    yield from table(("field", "value"), rows)
    yield ""
    yield f"{plural(len(run.history), 'epoch')} up to the weights that were kept."


def _value(name: str, value: Any) -> str:
    if name == "teacher" and value:
        return Path(value).name
    return value if isinstance(value, str) else json.dumps(value)


def _figures(
    artifact: Artifact, run: Checkpoint | None, results: Sequence[ClassResult]
) -> Iterator[str]:
    rows = []
    if found := artifact.metrics:
        on = f"{plural(found.images, 'held-out image')}, {found.runtime}"
        rows.append((f"{_accuracy(artifact)}: this artifact", percent(found.top1), on))
        torch = f"{_accuracy(artifact)}: the network in torch"
        rows.append((torch, percent(found.torch_top1), "the same images"))
        if found.mean_ap is not None and found.torch_mean_ap is not None:
            rows.append(("mAP: this artifact", percent(found.mean_ap), on))
            rows.append(
                ("mAP: the network in torch", percent(found.torch_mean_ap), "the same images")
            )
    if run and "test_top1" in run.metrics:
        on = plural(int(run.metrics["test_images"]), "test image")
        name = f"{_accuracy(artifact)}: torch"
        rows.append((name, percent(run.metrics["test_top1"]), on))
        if "test_map" in run.metrics:
            rows.append(("mAP: torch", percent(run.metrics["test_map"]), on))
    if results:
        on = f"{plural(sum(each.images for each in results), 'held-out image')}, torch"
        rows.append(("macro-F1", percent(macro_f1(results)), on))
        if artifact.task == "single":
            rows.append(("balanced accuracy", percent(balanced_accuracy(results)), on))
    if run and "calibration_error" in run.metrics:
        error = percent(run.metrics["calibration_error"])
        rows.append(("expected calibration error", error, "torch"))
    if artifact.weights == "imagenet" and (known := published_top1(artifact.model)):
        on = f"published, not measured here: {escape(known.source)}, {known.size} px"
        rows.append(("top-1 on ImageNet", percent(known.top1), on))
    for gate in artifact.gates:
        rows.append((gate.title, gate.figure, f"{gate.bound}; {escape(gate.measured)}"))
    if not rows:
        yield f"Not measured: {escape(artifact.unverified or 'no labelled images')}."
        return
    yield from table(("figure", "value", "on"), rows)


def _classes(results: Sequence[ClassResult]) -> Iterator[str]:
    """Yields the table of the classes as the network in torch answers."""
    shown = list(results)
    if len(results) > _ALL:
        measured = [each for each in results if each.images]
        shown = sorted(measured, key=lambda each: each.f1 or 0.0)[:_WORST]
        yield from (f"The {len(shown)} of the lowest F1, of {len(results):,} classes:", "")
    rows = [
        (escape(each.label), f"{each.images:,}", *map(_share, (each.top1, each.precision, each.f1)))
        for each in shown
    ]
    yield from table(_CLASS_COLUMNS, rows, numeric=_CLASS_COLUMNS[1:])


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)


def _measured(latency: QuickLatency | str) -> str:
    if isinstance(latency, str):
        return f"Not measured: {escape(latency)}."
    return (
        f"One image per call, one thread, {latency.runtime} ({latency.library}) on "
        f"{escape(latency.machine)}: p50 {ms(latency.p50_s)} ms, p95 {ms(latency.p95_s)} ms of "
        f"{plural(latency.calls, 'call')}, one after the other, right after the export. "
        "`pocketnets bench` measures in turns with others, and longer."
    )


def _limits(artifact: Artifact, run: Checkpoint | None) -> Iterator[str]:
    if artifact.task == "multi":
        yield "- An image has each label whose score is above its threshold, in `manifest.json`."
    else:
        yield "- It answers one of its classes for any image, also for one of none of them."
    if artifact.metrics or run:
        yield (
            "- Held-out images are from the same source as those it learned from: images from "
            "another camera or place can do worse."
        )
    if artifact.weights == "random":
        yield "- Its weights are random: it is useful for latency only."
    low, high = artifact.batch_range
    yield f"- {low} to {plural(high, 'image')} per call, of {size_text(artifact.preprocess.crop)}."
    if (made := artifact.quantization) is not None:
        yield (
            f"- Its ranges were calibrated on {plural(made.images, 'image')}; weights have "
            f"{made.weight_bits} bits."
        )
    if artifact.spec.machine_bound:
        yield "- It runs only on machines like the one it was built on."
    if artifact.unverified:
        yield f"- It was never run where it was made: {escape(artifact.unverified)}."


def _licence(artifact: Artifact, license: str | None) -> str:
    if license:
        return escape(license)
    return (
        "No licence was given at the export (`--license`). The terms of the images and of the "
        "first weights apply to what was learned from them."
    )
