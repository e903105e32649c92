"""The figures in a model card: of the artifact, and of the network in torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from artifact.artifact import Artifact
from models.published import published_top1
from report.format import percent, plural
from report.markdown import escape, table
from training.summary.confusion import ClassResult, balanced_accuracy, class_results, macro_f1

if TYPE_CHECKING:
    from training.checkpoint import Checkpoint

_ALL = 100  # most classes of which all are listed
_WORST = 20


def results_of(run: Checkpoint) -> list[ClassResult]:
    """Returns the figures of each class, or label by its threshold, on held-out images."""
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


def accuracy_name(artifact: Artifact) -> str:
    """Returns what its ``top1`` is the fraction of."""
    return "top-1" if artifact.task == "single" else "images with exactly the right labels"


def figures(
    artifact: Artifact, run: Checkpoint | None, results: Sequence[ClassResult]
) -> Iterator[str]:
    """Yields the table of figures, each with the images it is of."""
    rows = []
    if found := artifact.metrics:
        on = f"{plural(found.images, f'{found.part} image')}, {found.runtime}"
        rows.append((f"{accuracy_name(artifact)}: this artifact", percent(found.top1), on))
        torch = f"{accuracy_name(artifact)}: the network in torch"
        rows.append((torch, percent(found.torch_top1), "the same images"))
        if found.mean_ap is not None and found.torch_mean_ap is not None:
            rows.append(("mAP: this artifact", percent(found.mean_ap), on))
            rows.append(
                ("mAP: the network in torch", percent(found.torch_mean_ap), "the same images")
            )
    if run and "test_top1" in run.metrics:
        on = plural(int(run.metrics["test_images"]), "test image")
        name = f"{accuracy_name(artifact)}: torch"
        rows.append((name, percent(run.metrics["test_top1"]), on))
        if "test_map" in run.metrics:
            rows.append(("mAP: torch", percent(run.metrics["test_map"]), on))
    if run and results:
        on = f"{plural(int(run.metrics['images']), 'held-out image')}, torch"
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


def thresholds(artifact: Artifact) -> Iterator[str]:
    """Yields the table of the labels' thresholds, the first of them."""
    few = list(zip(artifact.labels, artifact.thresholds, strict=True))[:_ALL]
    if len(few) < len(artifact.labels):
        yield from (f"The first {_ALL} of {len(artifact.labels):,}:", "")
    rows = [(escape(label), f"{each:.3f}") for label, each in few]
    yield from table(("label", "threshold"), rows, numeric=("threshold",))


def classes(artifact: Artifact, results: Sequence[ClassResult]) -> Iterator[str]:
    """Yields the table of the classes or labels, as the network in torch answers."""
    several = artifact.task == "multi"
    named = "labels" if several else "classes"
    yield f"As the network in torch answers the held-out images{', by the thresholds' * several}."
    yield ""
    shown = list(results)
    if len(results) > _ALL:
        measured = [each for each in results if each.images]
        shown = sorted(measured, key=lambda each: each.f1 or 0.0)[:_WORST]
        yield from (f"The {len(shown)} of the lowest F1, of {len(results):,} {named}:", "")
    columns = ["label" if several else "class", "images", "recall", "precision", "F1"]
    if several:
        columns.append("threshold")
    rows = [
        (
            escape(each.label),
            f"{each.images:,}",
            *map(_share, (each.top1, each.precision, each.f1)),
            *([f"{artifact.thresholds[each.index]:.3f}"] if several else []),
        )
        for each in shown
    ]
    yield from table(columns, rows, numeric=columns[1:])


def _share(value: float | None) -> str:
    return "-" if value is None else percent(value)
