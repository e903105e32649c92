"""The prediction log of a service: JSON Lines files in a folder, a row for each logged answer."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import AwareDatetime, Field

from artifact.artifact import Artifact
from artifact.profile import SCORE
from artifact.records import Count, Fraction, NonNegative
from core.errors import UserError
from core.image_statistics import STATISTICS
from core.record_file import read_rows

PATTERN = "predictions-*.jsonl"
_REMEDY = "delete the line, or the file"


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedLabel:
    """A label of an answer, its index among the labels, and its score."""

    label: str
    index: Count
    score: Fraction


@dataclass(frozen=True, kw_only=True, slots=True)
class LoggedAnswer:
    """An answer of the service.

    Attributes:
        time: date and time of the answer, with its time zone.
        name: name of the model in the service.
        version: its version there.
        artifact: beginning of the SHA-256 of the artifact's model file.
        model: name of the network.
        precision: precision of the artifact.
        runtime: name of the runtime.
        predictions: the predictions of the answer, the likeliest label first.
        shadow: whether the model was asked as a shadow, whose answers nobody gets.
        labels: those that the image has by the answer, where it can have several, or none.
        timings_ms: milliseconds of each stage.
        bytes: size of the image file.
        statistics: those of the pixels that the network got (:mod:`core.image_statistics`).
        image: name of the image in the folder ``images`` of the log; None if it is not kept.
    """

    time: AwareDatetime
    name: str
    version: str
    artifact: str
    model: str
    precision: str
    runtime: str
    predictions: Annotated[tuple[LoggedLabel, ...], Field(min_length=1)]
    timings_ms: dict[str, float]
    bytes: Count
    statistics: dict[str, NonNegative]
    shadow: bool = False
    labels: tuple[str, ...] | None = None
    image: str | None = None


def artifact_key(artifact: Artifact) -> str:
    """Returns the beginning of the digest of the model file, by which rows name their artifact."""
    return artifact.sha256s[artifact.spec.model_file][:12]


def columns_of(
    rows: Collection[LoggedAnswer],
) -> tuple[dict[str, npt.NDArray[np.float64]], npt.NDArray[np.intp]]:
    """Returns the values of ``rows`` by feature, (n,) each, and the likeliest labels (n,)."""
    best = [row.predictions[0] for row in rows]
    features = {SCORE: np.array([each.score for each in best])}
    features |= {name: np.array([row.statistics[name] for row in rows]) for name in STATISTICS}
    return features, np.array([each.index for each in best], np.intp)


def log_files(log: Path) -> list[Path]:
    """Returns the files of a log, the oldest first; of a single file, that one.

    Raises:
        UserError: there is neither such a file nor a folder with such files.
    """
    files = [log] if log.is_file() else sorted(log.glob(PATTERN))
    if not files:
        raise UserError(
            f"{log}: no prediction log; it is a folder with {PATTERN}, which a service writes "
            "with POCKETNETS_LOG_PREDICTIONS"
        )
    return files


def read_log(log: Path) -> Iterator[LoggedAnswer]:
    """Yields the rows of a log (:func:`log_files`); a last line that is not complete is left out.

    Raises:
        UserError: no such log, or a line that is no row.
    """
    for file in log_files(log):
        yield from read_rows(file, LoggedAnswer, remedy=_REMEDY)
