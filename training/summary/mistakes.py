"""The worst mistakes of a network: wrong answers with the highest scores."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from pydantic import Field

from core.preprocess import encode_png
from report.format import percent, plural
from report.markdown import escape, table
from report.thumbnails import SIDE, thumbnail
from training.data import Sample, open_image

MISTAKES = "mistakes.png"
SHOWN = 12  # in the README of a run
_COLUMNS, _GAP, _LINE = 6, 12, 22  # tiles in a row; pixels between tiles, and of a tile's number
_HEADER = ("number", "image", "true class", "taken for", "score")

Indices = npt.NDArray[np.integer]


@dataclass(frozen=True, kw_only=True, slots=True)
class Mistake:
    """A misclassified image.

    Attributes:
        image: path of its file, or its number in the data set.
        label: its true class, by the artifact's label.
        answer: the predicted class.
        score: softmax score of the prediction, in [0, 1].
        thumbnail: a small JPEG of it.
    """

    image: str
    label: str
    answer: str
    score: float
    thumbnail: Annotated[bytes, Field(exclude=True)]  # not stored in files


def worst_mistakes(
    samples: Sequence[Sample],
    names: Sequence[str],
    answers: Indices,
    scores: npt.NDArray[np.floating],
    labels: Sequence[str],
    count: int,
) -> tuple[Mistake, ...]:
    """Returns the wrong answers with the highest scores, in descending order.

    Args:
        samples: images with their true classes.
        names: what each is called.
        answers: (N,) class that the network answers to each.
        scores: (N,) of those answers, in [0, 1].
        labels: class names.
        count: most mistakes to return.
    """
    truth = np.array([label for _, label in samples], dtype=np.int64)
    wrong = np.flatnonzero(answers != truth)
    worst = wrong[np.argsort(-scores[wrong], kind="stable")][:count]
    return tuple(
        Mistake(
            image=names[number],
            label=labels[truth[number]],
            answer=labels[answers[number]],
            score=float(scores[number]),
            thumbnail=thumbnail(open_image(samples[number][0], "accept")),
        )
        for number in worst
    )


def names_of(samples: Sequence[Sample], folder: str | None) -> list[str]:
    """Returns what each held-out image is called: its path inside ``folder``, or its number."""
    root = Path(folder or "").absolute()

    def name(number: int, source: Path | Image.Image) -> str:
        if not isinstance(source, Path):
            return f"held-out image {number}"
        inside = source.absolute()
        path = inside.relative_to(root) if inside.is_relative_to(root) else source
        return str(path).encode(errors="replace").decode()

    return [name(number, source) for number, (source, _) in enumerate(samples)]


def mistakes_png(mistakes: Sequence[Mistake]) -> bytes:
    """Returns a PNG of the thumbnails, numbered from 1, six in a row."""
    columns = min(_COLUMNS, len(mistakes))
    rows = -(-len(mistakes) // _COLUMNS)
    wide, high = SIDE + _GAP, SIDE + _LINE + _GAP
    sheet = Image.new("RGB", (columns * wide + _GAP, rows * high + _GAP), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_LINE - 6)
    for place, mistake in enumerate(mistakes):
        row, column = divmod(place, _COLUMNS)
        left, top = _GAP + column * wide, _GAP + row * high
        draw.text((left, top), str(place + 1), "#22272e", font)
        sheet.paste(Image.open(io.BytesIO(mistake.thumbnail)), (left, top + _LINE))
    return encode_png(sheet)


def mistake_lines(mistakes: Sequence[Mistake]) -> list[str]:
    """Returns the section of a run's README as Markdown; nothing without mistakes."""
    if not mistakes:
        return []
    rows = [
        [
            str(number),
            escape(each.image),
            escape(each.label),
            escape(each.answer),
            percent(each.score),
        ]
        for number, each in enumerate(mistakes, start=1)
    ]
    return [
        "## Worst mistakes",
        "",
        f"Of the held-out images, the {plural(len(rows), 'wrong answer')} with the highest "
        "scores. An image whose label is wrong, or that two classes could claim, often is among "
        "them.",
        "",
        f"![Small pictures of these images, numbered]({MISTAKES})",
        "",
        *table(_HEADER, rows, numeric=("number", "score")),
        "",
    ]
