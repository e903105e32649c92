"""What the reports of all evaluations have: which images were used, and on which machine."""

from __future__ import annotations

from collections.abc import Iterable

from artifact.runtimes.base import RUNTIMES
from core.machine import this_machine
from predict.evaluation import Evaluation, Subject
from predict.several import SeveralEvaluation
from report.format import plural
from report.section import Section, Table
from training.scan import some

NAME = "evaluation"
AnyEvaluation = Evaluation | SeveralEvaluation
_UNREADABLE = 20  # most of them listed; the JSON file has all


def held_out(name: str, subject: Subject, *, included: bool) -> str:
    """Returns a sentence on whether the artifact was trained on any of the images."""
    if subject.seen is None:
        return (
            f"{name} may have learned from some of these images, which would make its figures too "
            f"good: {subject.source}."
        )
    if not subject.seen:
        return f"{name} learned from none of these images: {subject.source}."
    images = plural(subject.seen, "image")
    if included:
        return f"{name} learned from {images} of these, so its figures are too good."
    return f"{name} learned from {images}, which are left out: {subject.source}."


def images_section(evaluation: AnyEvaluation) -> Section:
    """Returns the section on the images that were used, and on those that were not."""
    sentences = [
        f"{evaluation.images:,} of the {evaluation.part} of {evaluation.data} were answered.",
        *evaluation.unused,
    ]
    if evaluation.lacking:
        sentences.append(
            f"{plural(len(evaluation.lacking), 'label')} of the artifact "
            f"{'is' if len(evaluation.lacking) == 1 else 'are'} no class of the data: "
            f"{some(evaluation.lacking)}."
        )
    tables = []
    if evaluation.unknown:
        rows = tuple((name, f"{count:,}") for name, count in evaluation.unknown.items())
        header = ("Class without a label, left out", "Images")
        tables.append(Table(header=header, rows=rows, numeric=frozenset({"Images"})))
    if unreadable := evaluation.unreadable:
        left = len(unreadable) - _UNREADABLE
        if left > 0:
            sentences.append(
                f"Of the {len(unreadable):,} images that could not be answered, {left:,} more are "
                f"listed in {NAME}.json."
            )
        rows = tuple((each.image, each.reason) for each in unreadable[:_UNREADABLE])
        tables.append(Table(header=("Image that could not be answered", "Why"), rows=rows))
    return Section(title="Images", sentences=tuple(sentences), tables=tuple(tables))


def machine_facts(evaluation: AnyEvaluation) -> Iterable[tuple[str, str]]:
    """Yields name and value of each fact of the machine."""
    subjects = [evaluation.subject, *([evaluation.against.subject] if evaluation.against else [])]
    runtimes = dict.fromkeys(each.runtime for each in subjects)
    machine = this_machine([name for each in runtimes for name in RUNTIMES[each].packages])
    yield "Processor", f"{machine.cpu}, {plural(machine.cores, 'core')}"
    if machine.gpu:
        yield "GPU", f"{machine.gpu}, driver {machine.driver}"
    yield "System", machine.os
    yield "Versions", ", ".join(f"{name} {number}" for name, number in machine.versions.items())
