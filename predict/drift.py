"""Compares the prediction log of a service with what its artifact was made with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt

from artifact.artifact import Artifact
from artifact.drift import MODERATE, Drift, corrected, drifts
from artifact.prediction_log import LoggedAnswer, artifact_key, columns_of, log_files, read_log
from artifact.profile import profile_of
from artifact.records import Profile
from core.errors import UserError
from core.image_statistics import STATISTICS
from report.format import plural

LEAST = 50  # rows of which anything can be said
SIGNIFICANT = 0.01  # corrected p-value from which a change is one


@dataclass(frozen=True, kw_only=True, slots=True)
class Observed:
    """Answers of an artifact in service, as columns.

    Attributes:
        times: UTC time of each answer, in order.
        features: values by feature, (n,) each.
        classes: index of the likeliest label of each.
        other: number of rows of other artifacts, which are not among them.
    """

    times: tuple[datetime, ...]
    features: dict[str, npt.NDArray[np.float64]]
    classes: npt.NDArray[np.intp]
    other: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DriftFindings:
    """What ``drift`` found.

    Attributes:
        log: what was read.
        origin: what it is compared with, in words.
        labels: class names, by index.
        profile: distributions before.
        observed: answers now.
        rows: the drift of each feature.
        p_values: of each, corrected for their number.
    """

    log: Path
    origin: str
    labels: Sequence[str]
    profile: Profile
    observed: Observed
    rows: tuple[Drift, ...]
    p_values: tuple[float, ...]

    @property
    def changed(self) -> list[Drift]:
        """Returns what has drifted: by more than chance explains, and by enough to matter."""
        pairs = zip(self.rows, self.p_values, strict=True)
        return [row for row, p in pairs if p < SIGNIFICANT and row.psi >= MODERATE]


def find_drift(
    log: Path,
    artifact: Artifact,
    *,
    earlier: Path | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
) -> DriftFindings:
    """Compares the answers of ``artifact`` in a prediction log with an earlier distribution.

    Args:
        log: folder or file of the log.
        artifact: whose answers are taken; others are counted.
        earlier: a log to compare with; None for the profile that the artifact's export stored.
        since: the first time that counts; None for all.
        until: the first time after it that does not.

    Raises:
        UserError: no such log, fewer than :data:`LEAST` answers of the artifact in it, or nothing
            to compare with.
    """
    observed = _observed(log, artifact, since, until)
    if earlier is not None:
        before = _observed(earlier, artifact, None, None)
        counts = np.bincount(before.classes, minlength=len(artifact.labels))
        profile, origin = profile_of(before.features, counts), f"the log {earlier}"
    elif artifact.profile is not None:
        profile = artifact.profile
        origin = f"{plural(profile.images, 'held-out image')} of {artifact.source.data}"
    else:
        raise UserError(
            f"{artifact.path} has no profile, as it was made without labelled images, or by an "
            "earlier version; export it again with --data, or add --earlier LOG, a log of its "
            "answers in a good time"
        )
    rows = drifts(profile, observed.features, observed.classes)
    return DriftFindings(
        log=log,
        origin=origin,
        labels=artifact.labels,
        profile=profile,
        observed=observed,
        rows=tuple(rows),
        p_values=tuple(corrected([row.p_value for row in rows]).tolist()),
    )


def _observed(
    log: Path, artifact: Artifact, since: datetime | None, until: datetime | None
) -> Observed:
    key = artifact_key(artifact)
    rows: list[LoggedAnswer] = []
    others: Counter[str] = Counter()
    early_or_late = 0
    for row in read_log(log):
        if (since and row.time < since) or (until and row.time >= until):
            early_or_late += 1
            continue
        if row.artifact == key:
            _check(log, row, len(artifact.labels))
            rows.append(row)
        else:
            others[f"{row.model} {row.precision} ({row.artifact})"] += 1
    if len(rows) < LEAST:
        found = ", ".join(f"{count:,} of {name}" for name, count in others.most_common(3))
        raise UserError(
            f"{log}: {plural(len(rows), 'answer')} of {artifact.path} ({key}) in "
            f"{plural(len(log_files(log)), 'file')}, at least {LEAST} are needed"
            + (f"; there are {found}" if found else "")
            + (f"; {early_or_late:,} are not in the time asked for" if early_or_late else "")
        )
    rows.sort(key=lambda row: row.time)
    features, classes = columns_of(rows)
    return Observed(
        times=tuple(row.time for row in rows),
        features=features,
        classes=classes,
        other=others.total(),
    )


def _check(log: Path, row: LoggedAnswer, labels: int) -> None:
    """Raises UserError for a row that this artifact cannot have answered."""
    missing = [name for name in STATISTICS if name not in row.statistics]
    if missing or row.predictions[0].index >= labels:
        what = f"lacks {missing[0]}" if missing else f"has a label beyond the {labels}"
        raise UserError(f"{log}: the row of {row.time} {what}: delete it, or its file")
