from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from artifact.artifact import Artifact
from artifact.prediction_log import LoggedAnswer, LoggedLabel, artifact_key
from artifact.profile import SCORE, profile_of
from artifact.records import Profile
from core.errors import UserError
from core.image_statistics import STATISTICS
from core.record_file import write_rows
from predict.drift import find_drift
from predict.drift_command import DriftCommand
from predict.drift_report import drift_report

START = datetime(2026, 11, 1, tzinfo=UTC)
RANDOM = np.random.default_rng(0)


def features(count: int, brightness: float) -> dict[str, np.ndarray]:
    values = {name: RANDOM.uniform(0.2, 0.4, count) for name in (SCORE, *STATISTICS)}
    values["brightness"] = RANDOM.normal(brightness, 0.1, count).clip(0, 1)
    return values


def profile() -> Profile:
    return profile_of(features(500, 0.5), np.array([200, 200, 100]))


def write_log(
    folder: Path,
    made: Artifact,
    count: int,
    brightness: float,
    step: timedelta = timedelta(minutes=1),
    **changes: str,
) -> Path:
    columns = features(count, brightness)
    facts = {"artifact": artifact_key(made), "model": made.model, "precision": "fp32"}
    rows = []
    for n, index in enumerate(RANDOM.choice(3, count, p=[0.4, 0.4, 0.2])):
        best = LoggedLabel(label=made.labels[index], index=int(index), score=columns[SCORE][n])
        row = LoggedAnswer(
            time=START + n * step,
            name="means",
            version="1",
            runtime="ort-cpu",
            predictions=(best,),
            timings_ms={"decode": 1.0},
            bytes=100,
            statistics={name: columns[name][n] for name in STATISTICS},
            **{**facts, **changes},
        )
        rows.append(row)
    folder.mkdir(exist_ok=True)
    name = f"predictions-{len(list(folder.iterdir()))}.jsonl"
    write_rows(folder / name, rows)
    return folder


@pytest.fixture
def artifact(make_artifact: Callable[..., Path]) -> Artifact:
    return Artifact.load(make_artifact(profile=profile()))


def test_darker_images_are_found_and_nothing_else(
    artifact: Artifact, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = write_log(here / "log", artifact, 400, 0.35)
    found = find_drift(log, artifact)
    assert [row.feature for row in found.changed] == ["brightness"]
    report = drift_report(found)
    assert report.title == "Drift: brightness"
    assert len(report.summary) == 1
    assert DriftCommand(log=log, against=artifact.path)() == 0
    capsys.readouterr()
    assert DriftCommand(log=log, against=artifact.path, max_psi=0.5)() == 1
    assert "is above 0.5" in capsys.readouterr().err
    page = (here / "reports/drift.html").read_text()
    assert "Drift: brightness" in page
    assert "The machine" not in page  # of which a log says nothing
    assert (here / "reports/drift.png").stat().st_size > 1000


def test_without_drift_it_says_so(artifact: Artifact, tmp_path: Path) -> None:
    log = write_log(tmp_path / "log", artifact, 400, 0.5)
    found = find_drift(log, artifact)
    assert found.changed == []
    assert drift_report(found).title == "No drift found"


def test_times_choose_answers_and_other_artifacts_are_counted(
    artifact: Artifact, tmp_path: Path
) -> None:
    log = write_log(tmp_path / "log", artifact, 100, 0.5)
    write_log(log, artifact, 30, 0.1, artifact="0" * 12, model="other")
    found = find_drift(log, artifact, since=START + timedelta(minutes=20))
    assert len(found.observed.times) == 80
    assert found.observed.other == 10  # from then on
    assert found.observed.times[0] == START + timedelta(minutes=20)
    with pytest.raises(UserError, match=r"10 answers .* 50 are needed.* not in the time"):
        find_drift(log, artifact, until=START + timedelta(minutes=10))


@pytest.mark.parametrize(
    ("step", "field", "told", "form"),
    [
        (timedelta(0), "answer", "00:00:00.000", None),
        (timedelta(microseconds=9), "answer", "00:00:00.000", None),
        (timedelta(milliseconds=5), "seconds", "00:00:00.495", None),
        (timedelta(seconds=2), "time", "00:03", "%H:%M:%S"),
        (timedelta(hours=12), "time", "12:00", "%b %d"),
    ],
)
def test_the_course_of_time_is_legible_however_long_it_is(
    artifact: Artifact, tmp_path: Path, step: timedelta, field: str, told: str, form: str | None
) -> None:
    log = write_log(tmp_path / "log", artifact, 100, 0.5, step)
    report = drift_report(find_drift(log, artifact))
    assert f" to 2026-1{2 if step.seconds > 9 else 1}-" in report.subtitle
    assert f"{told} UTC in " in report.subtitle
    (figure,) = report.sections[-1].figures
    drawn = figure.chart.to_dict()
    axis = drawn["encoding"]["x"]
    assert axis["field"] == field
    assert axis.get("axis", {}).get("format") == form
    assert len({point[field] for point in drawn["data"]["values"]}) == 4  # of 25 answers each


def test_an_earlier_log_can_be_what_was_before(
    make_artifact: Callable[..., Path], tmp_path: Path
) -> None:
    plain = Artifact.load(make_artifact())
    now = write_log(tmp_path / "now", plain, 300, 0.3)
    with pytest.raises(UserError, match=r"has no profile.*add --earlier LOG"):
        find_drift(now, plain)
    earlier = write_log(tmp_path / "earlier", plain, 300, 0.5)
    found = find_drift(now, plain, earlier=earlier)
    assert [row.feature for row in found.changed] == ["brightness"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing"], "missing: no prediction log"),
        (["log", "--since", "yesterday"], "--since is 'yesterday'"),
        (["log", "--max-psi", "nan"], "--max-psi is nan"),
    ],
)
def test_a_mistake_ends_in_one_line(
    artifact: Artifact,
    here: Path,
    command: Callable[..., subprocess.CompletedProcess[str]],
    arguments: list[str],
    words: str,
) -> None:
    write_log(here / "log", artifact, 60, 0.5)
    ended = command("pocketnets", "drift", *arguments, "--against", str(artifact.path))
    assert ended.returncode == 1
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"predictions": []}, "predictions"),
        ({"statistics": {}}, "lacks brightness"),
        ({"predictions": [{"label": "x", "index": 2**52, "score": 0.5}]}, "beyond the 3"),
        ({"time": "yesterday"}, "time"),
        ({"time": "2026-11-01T00:00:00"}, "time"),
    ],
)
def test_a_row_that_cannot_be_is_told_in_one_line(
    artifact: Artifact, tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    log = write_log(tmp_path / "log", artifact, 60, 0.5)
    (file,) = log.iterdir()
    *lines, last = file.read_text().splitlines()
    file.write_text("\n".join([*lines, json.dumps({**json.loads(last), **changes})]) + "\n")
    with pytest.raises(UserError, match=words) as caught:
        find_drift(log, artifact, since=START)
    assert "\n" not in str(caught.value)
