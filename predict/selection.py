"""Selects the images of a data set on which an artifact is evaluated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from core.errors import UserError
from predict.evaluation import Unreadable
from predict.matching import Matching
from predict.pipeline import readable
from predict.seen import Learned
from training.data import Sample
from training.identity import digest_of
from training.labelled import Labelled
from training.look import look_at


@dataclass(frozen=True, kw_only=True, slots=True)
class Selected:
    """The selected labelled images, and what was left out.

    Attributes:
        samples: images with the indices of their labels.
        names: name of each: its path, or its number among these images, from 0.
        unreadable: files that are not images.
        seen: number of images that any of the artifacts was trained on.
        seen_by: the same for each artifact; None if unknown.
        unknown: number of images of each class without a label.
        contradictions: pairs of names of the same image with two labels.
    """

    samples: tuple[Sample, ...]
    names: tuple[str, ...]
    unreadable: tuple[Unreadable, ...]
    seen: int
    seen_by: tuple[int | None, ...]
    unknown: Mapping[str, int]
    contradictions: tuple[tuple[str, str], ...]


def select_images(
    images: Labelled,
    matching: Matching,
    learned: Sequence[Learned],
    *,
    include_seen: bool = False,
    console: Console | None = None,
) -> Selected:
    """Returns the images that have a label and that no artifact was trained on.

    Args:
        images: the images to select from.
        matching: the labels of their classes.
        learned: the images each artifact was trained on.
        include_seen: whether to include those.
        console: console for progress; None for no progress.

    Raises:
        UserError: an artifact was trained on all of them.
    """
    looks = look_at([source for source, _ in images.samples if isinstance(source, Path)], console)
    chosen: list[tuple[str, Sample]] = []
    unreadable: list[Unreadable] = []
    unknown: Counter[str] = Counter(dict.fromkeys(matching.unknown, 0))
    seen_by, seen = [0] * len(learned), 0
    first: dict[bytes, tuple[int, str]] = {}  # label and name of each image
    contradictions: list[tuple[str, str]] = []
    for number, (source, class_index) in enumerate(images.samples):
        name = str(source) if isinstance(source, Path) else f"image {number} of {images.data}"
        label = matching.indices[class_index]
        look = looks[source] if isinstance(source, Path) else digest_of(source)
        if label is None:
            unknown[images.labels[class_index]] += 1
        elif isinstance(look, str):
            unreadable.append(Unreadable(image=readable(name), reason=look))
        else:
            by = [look in (each.digests or ()) for each in learned]
            seen_by = [count + new for count, new in zip(seen_by, by, strict=True)]
            seen += any(by)
            if include_seen or not any(by):
                chosen.append((readable(name), (source, label)))
                other_label, other = first.setdefault(look, (label, readable(name)))
                if other_label != label:
                    contradictions.append((other, readable(name)))
    if seen and not chosen:
        raise UserError(
            f"{images.data}: all of its {seen:,} {images.part} are learned from; name others, or "
            "--include-seen takes them"
        )
    return Selected(
        samples=tuple(sample for _, sample in chosen),
        names=tuple(name for name, _ in chosen),
        unreadable=tuple(unreadable),
        seen=seen,
        seen_by=tuple(
            None if each.digests is None else count
            for each, count in zip(learned, seen_by, strict=True)
        ),
        unknown=unknown,
        contradictions=tuple(contradictions),
    )
