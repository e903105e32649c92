"""What an evaluation found, as records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field

from artifact.records import Precision
from predict.figures import Figures, Paired


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """An artifact that was evaluated.

    Attributes:
        path: its folder.
        model: registry name of its network.
        data: name of the data it was made for.
        format: kind of its model file.
        precision: of its graph.
        runtime: what executed it.
        seen: images of the data that it learned from; None where nobody knows.
        source: how that is known, or why it is not.
    """

    path: str
    model: str
    data: str
    format: str
    precision: Precision
    runtime: str
    seen: int | None
    source: str

    @property
    def name(self) -> str:
        """Returns what it is called in a sentence."""
        return f"{self.model} ({self.format}-{self.precision}, {self.runtime})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """An image that was given another name than its own.

    Attributes:
        image: path of its file, or which image of the data set it is.
        label: its class, as the artifact calls it.
        answer: the class it was taken for.
        score: softmax score of that, in [0, 1].
        thumbnail: a small JPEG of it.
    """

    image: str
    label: str
    answer: str
    score: float
    thumbnail: Annotated[bytes, Field(exclude=True)]  # not in a file of records


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """An image that was not answered, and why."""

    image: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Another artifact on the same images.

    Attributes:
        subject: the other artifact.
        figures: what it reaches.
        paired: the first artifact and this one, image by image.
    """

    subject: Subject
    figures: Figures
    paired: Paired


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation(Figures):
    """What an artifact reaches on labelled images, and what was left out.

    Attributes:
        subject: the artifact.
        data: name of the data set, or path of the folder.
        part: which images of it were taken, in words.
        when: UTC date and time, ISO 8601.
        mistakes: the wrong answers of the highest scores, the highest first.
        unreadable: images that could not be answered.
        seen: images that an artifact learned from, of the data or its other.
        seen_included: whether they are among those answered; if not, they are left out.
        unknown: classes of the data that are no label of the artifact, which are left out: how many
            images each has.
        lacking: labels of the artifact that are no class of the data.
        contradictions: names of each two that are the same image, byte for byte, in two classes.
        unused: files of a folder that were not taken for its images, and why, in words.
        against: another artifact on the same images.
    """

    subject: Subject
    data: str
    part: str
    when: str
    mistakes: tuple[Mistake, ...]
    unreadable: tuple[Unreadable, ...]
    seen: int
    seen_included: bool
    unknown: Mapping[str, int]
    lacking: tuple[str, ...]
    contradictions: tuple[tuple[str, str], ...] = ()
    unused: tuple[str, ...] = ()
    against: Comparison | None = None
