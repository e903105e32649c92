"""Writes the model card of an artifact: Markdown with YAML front matter, as model hubs read it.

The front matter has the fields of huggingface_hub's ``ModelCardData``, with ``model-index``
results. No path of this machine is in it, as a card is made to be shown to others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from artifact.artifact import CARD, Artifact
from core.errors import UserError
from core.files import write_whole
from core.image_size import in_full
from export.card.figures import accuracy_name, classes, figures, results_of, thresholds
from export.card.latency import QuickLatency, quick_latency
from export.card.origin import data_of, data_part, recipe_part, trained_in_int8
from report.format import millions, ms, percent, plural
from report.markdown import escape

if TYPE_CHECKING:
    from training.checkpoint import Checkpoint

_ON_HUB = {
    "cifar10": "uoft-cs/cifar10",
    "cifar100": "uoft-cs/cifar100",
    "fashion_mnist": "zalando-datasets/fashion_mnist",
    "imagenet": "ILSVRC/imagenet-1k",
    "imagenet_run": "ILSVRC/imagenet-1k",
}
_TASK = "image-classification"


def write_card(artifact: Artifact, run: Checkpoint | None, license: str | None = None) -> Path:
    """Writes the model card into the folder of ``artifact`` and returns its path.

    Args:
        artifact: the artifact, complete in its folder; its latency is measured now.
        run: the run whose weights it has; None for others.
        license: identifier of the licence, such as ``apache-2.0``; None if it was not said.
    """
    front = yaml.safe_dump(
        front_matter(artifact, run, license), sort_keys=False, allow_unicode=True
    )
    body = "\n".join(_body(artifact, run, _latency(artifact), license))
    text = f"---\n{front}---\n\n{body}\n"
    return write_whole(artifact.path / CARD, text.encode(errors="replace"))


def front_matter(artifact: Artifact, run: Checkpoint | None, license: str | None) -> dict[str, Any]:
    """Returns the metadata of a card, ready for YAML."""
    metrics = []
    split = "held-out"
    if measured := artifact.metrics:
        split = measured.part
        on = f"{artifact.name}, {plural(measured.images, f'{split} image')}"
        of = f"{accuracy_name(artifact)}: {on}"
        metrics.append({"type": "accuracy", "value": round(measured.top1, 4), "name": of})
        if measured.mean_ap is not None:
            value = round(measured.mean_ap, 4)
            metrics.append({"type": "mAP", "value": value, "name": f"mAP: {on}"})
    name, data = f"{artifact.model}-{artifact.data}", data_of(artifact, run)
    if artifact.source.reading and artifact.source.data:  # not what it learned from
        data = Path(artifact.source.data).name
    evaluated = {
        "task": {"type": _TASK, "name": "Image classification"},
        "dataset": {"type": data, "name": data, "split": split},
        "metrics": metrics,
    }
    hub = _ON_HUB.get(data) if artifact.weights != "random" else None
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
    latency: QuickLatency | str,
    license: str | None,
) -> Iterator[str]:
    several = artifact.task == "multi"
    results = results_of(run) if run else []
    yield f"# {escape(artifact.model)} on {escape(data_of(artifact, run))}, {artifact.name}"
    yield ""
    yield " ".join(_what(artifact, several))
    yield from ("", "## Use", "", "```python", "import pocketnets", "")
    yield 'with pocketnets.load("PATH OF THIS FOLDER") as classify:'
    answer = "labels" if several else "top"
    yield from (f'    print(classify("photo.jpg").{answer})', "```", "")
    yield (
        f"Or any runtime that takes {artifact.spec.model_file}: input `{artifact.input.name}` "
        f"uint8 {_shape(artifact.input.shape)}, output `{artifact.output.name}` float32 "
        f"{_shape(artifact.output.shape)}. `manifest.json` has the preprocessing and the names of "
        f"the {'labels' if several else 'classes'}, in the order of the logits."
    )
    yield from ("", "## Data", "", *data_part(artifact, run), "")
    yield from ("## Recipe", "", *recipe_part(artifact, run), "")
    yield from ("## Figures", "", *figures(artifact, run, results), "")
    if results:
        each = "label" if several else "class"
        yield from (f"### Each {each}, of the network in torch", "")
        yield from (*classes(artifact, results), "")
    elif several:
        yield from ("### Thresholds", "", *thresholds(artifact), "")
    yield from ("## Latency", "", _measured(latency), "")
    yield from ("## Limits", "", *_limits(artifact, run), "")
    yield from ("## Licence", "", _licence(artifact, license))


def _what(artifact: Artifact, several: bool) -> Iterator[str]:
    """Yields the sentences that say what the artifact is."""
    count, channels = len(artifact.labels), artifact.preprocess.channels
    told = plural(count, "label") if several else plural(count, "class", "classes")
    yield (
        f"An image classifier for {told}{', any number of them per image' * several}: the network "
        f"{escape(artifact.model)} with {millions(artifact.parameters)} parameters and "
        f"{millions(artifact.macs)} MACs per image, {artifact.format} in {artifact.precision}."
    )
    pixels = "RGB pixels" if channels == 3 else f"pixels in {plural(channels, 'channel')}"
    yield (
        f"It takes uint8 {pixels} of {in_full(artifact.preprocess.crop)} and answers logits; "
        "normalisation is part of it."
    )
    if several:
        yield (
            "The sigmoid of a logit is the score of its label, and an image has each label with a "
            "score above its threshold."
        )


def _shape(shape: Sequence[int | str]) -> str:
    return f"({', '.join(map(str, shape))})"


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
        if run is None:
            yield (
                "- Thresholds are those of the best F1 on further images of the same data."
                if artifact.metrics
                else "- No threshold was chosen: no images with labels were at hand."
            )
    else:
        yield "- It answers one of its classes for any image, also for one of none of them."
    if found := artifact.abstention:
        yield (
            f"- With `--abstain` it gives no class where the best score is below "
            f"{found.threshold:.3f}, a threshold chosen for a precision of "
            f"{percent(found.wanted)}: of {plural(found.images, 'held-out image')} it answered "
            f"{percent(found.coverage)} (coverage), and {percent(found.precision)} of these "
            "correctly (precision)."
        )
    if artifact.source.reading and artifact.metrics:
        yield "- Whether it learned from some of the images that judge it is not known."
    elif artifact.metrics or run:
        yield (
            "- Held-out images are from the same source as those it learned from: images from "
            "another camera or place can do worse."
        )
    if artifact.weights == "random":
        yield "- Its weights are random: it is useful for latency only."
    low, high = artifact.batch_range
    yield f"- {low} to {plural(high, 'image')} per call, of {in_full(artifact.preprocess.crop)}."
    if (made := artifact.quantization) is not None:
        calibrated = f"calibrated on {plural(made.images, 'image')}"
        learned = "learned by quantization-aware fine-tuning (QAT)"
        ranges = learned if trained_in_int8(artifact) else calibrated
        yield f"- Its ranges were {ranges}; weights have {made.weight_bits} bits."
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
