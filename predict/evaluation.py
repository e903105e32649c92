"""Records of an evaluation's results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from artifact.records import Precision
from predict.figures import Figures, Paired
from training.summary.mistakes import Mistake


@dataclass(frozen=True, kw_only=True, slots=True)
class Subject:
    """An evaluated artifact.

    Attributes:
        path: its folder.
        model: registry name of its network.
        data: name of the data set it was trained on.
        format: format of its model files.
        precision: precision of its graph.
        runtime: name of the runtime.
        seen: number of images of the data that it was trained on; None if unknown.
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
        """Returns its name for use in sentences."""
        return f"{self.model} ({self.format}-{self.precision}, {self.runtime})"


@dataclass(frozen=True, kw_only=True, slots=True)
class Unreadable:
    """An image that could not be classified, and why."""

    image: str
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """Another artifact on the same images.

    Attributes:
        subject: the other artifact.
        figures: its figures.
        paired: comparison of both artifacts image by image.
    """

    subject: Subject
    figures: Figures
    paired: Paired


@dataclass(frozen=True, kw_only=True, slots=True)
class Abstaining:
    """What is answered if the artifact abstains where it is unsure.

    Attributes:
        threshold: score below which an image gets no answer.
        wanted: precision for which that was chosen in training.
        answered: number of images that get one.
        right: number of right ones of them.
        precision: fraction of right answers among them; None if no image is answered.
        coverage: fraction of the images that are answered.
    """

    threshold: float
    wanted: float
    answered: int
    right: int
    precision: float | None
    coverage: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation(Figures):
    """The figures of an artifact on labelled images, and what was left out.

    Attributes:
        subject: the artifact.
        data: name of the data set, or path of the folder.
        part: a text that says which images of it were used.
        when: UTC date and time, ISO 8601.
        mistakes: wrong answers with the highest scores, in descending order.
        unreadable: images that could not be classified.
        seen: number of images that either artifact was trained on.
        seen_included: whether they are included; otherwise they were left out.
        unknown: number of images of each class that is not a label of the artifact; left out.
        lacking: labels of the artifact that are not a class of the data.
        contradictions: pairs of names of byte-identical images in two classes.
        unused: texts on files of a folder that were not used, with the reason.
        against: another artifact on the same images.
        abstaining: what is answered if it abstains; None if it cannot.
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
    abstaining: Abstaining | None = None
