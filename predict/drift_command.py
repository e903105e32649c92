"""The command ``pocketnets drift``."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import tyro

from artifact.opening import open_artifact
from artifact.store import choose
from core import cli
from core.errors import UserError
from core.files import check_folder
from predict.drift import find_drift
from predict.drift_report import drift_report
from report.terminal import show_report
from report.write import write_report

_When = Annotated[str | None, tyro.conf.arg(metavar="TIME")]


@dataclass(frozen=True, kw_only=True)
class DriftCommand:
    """Compare the prediction log of a service with what its artifact was made with.

    Writes reports/drift.html.
    """

    log: tyro.conf.Positional[Path]
    """Folder of the log, POCKETNETS_LOG_PREDICTIONS of the service, or one of its files."""
    against: Path
    """Folder of the artifact that the service ran, whose answers are taken from the log."""
    earlier: Annotated[Path | None, tyro.conf.arg(metavar="LOG")] = None
    """Compare with its answers in this log, not with the held-out images of its export. --against
    is needed all the same."""
    since: _When = None
    """Only answers from this time on, such as 2026-11-27 or 2026-11-27T06:00, in UTC."""
    until: _When = None
    """Only answers before this time."""
    max_psi: Annotated[float | None, tyro.conf.arg(metavar="NUMBER")] = None
    """Exit with 1 if the population stability index of any feature is larger."""
    out: Path = Path("reports")
    """Folder for drift.html, .md and the pictures."""

    def __call__(self) -> int:
        """Compares, writes the report, and returns the exit status."""
        if self.max_psi is not None and not self.max_psi >= 0:
            raise UserError(f"--max-psi is {self.max_psi}: it must be a number from 0")
        check_folder(self.out)
        found = find_drift(
            self.log,
            open_artifact(choose(self.against).artifact, allow_unverified=True),
            earlier=self.earlier,
            since=_time("since", self.since),
            until=_time("until", self.until),
        )
        report = drift_report(found)
        self.out.mkdir(parents=True, exist_ok=True)
        files = write_report(report, self.out)
        show_report(report)
        print(files.html)
        limit = self.max_psi
        above = [row for row in found.rows if limit is not None and row.psi > limit]
        for row in above:
            cli.notes().print(f"{row.feature}: PSI {row.psi:.2f} is above {limit:g}")
        return int(bool(above))


def _time(flag: str, text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise UserError(
            f"--{flag} is {text!r}: it must be a date or a time, such as 2026-11-27 or "
            "2026-11-27T06:00"
        ) from None
    return when.replace(tzinfo=UTC) if when.tzinfo is None else when
