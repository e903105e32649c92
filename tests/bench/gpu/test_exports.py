"""Exports of all networks, by jobs that are played."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

import export.jobs
from artifact.artifact import Artifact
from bench.gpu.process import Budget
from bench.gpu.steps import FILE, Export
from bench.gpu.steps import run_exports as run
from core.errors import UserError
from core.record_file import read_rows
from export.build import Outcome
from export.jobs import Job
from models.cost import known_costs
from models.registry import DEFAULT_NETWORKS


def test_what_was_made_and_what_was_not(
    tmp_path: Path, make_artifact: Callable[..., Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Job] = []
    artifact = make_artifact()

    def played(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, list[Outcome]]]:
        asked.extend(jobs)
        for job in jobs:
            made = [Outcome(target, artifact) for target in job.targets]
            lost = [Outcome("all", reason="it was killed", failed=True)]
            yield job, lost if job.model == "resnet50" else made

    monkeypatch.setattr(export.jobs, "run_jobs", played)
    said = run(tmp_path, Budget(60))
    assert said == (
        "22 artifacts of 12 networks in artifacts, batch 1 to 128; not made: resnet50 all: it was "
        "killed"
    )
    rows = read_rows(tmp_path / FILE, Export)
    assert [row.model for row in rows if row.reason == "it was killed"] == ["resnet50"]
    assert len(rows) == 23
    assert sorted(job.model for job in asked) == sorted(DEFAULT_NETWORKS)
    macs = [known_costs()[job.model].macs for job in asked if job.model in known_costs()]
    assert macs == sorted(macs, reverse=True)
    assert {(job.weights, job.options.max_batch) for job in asked} == {("random", 128)}


def test_nothing_made_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost = [Outcome("all", reason="no memory", failed=True)]
    monkeypatch.setattr(
        export.jobs, "run_jobs", lambda jobs, workers: ((job, lost) for job in jobs)
    )
    with pytest.raises(UserError, match=r"no artifact could be made; .* all: no memory"):
        run(tmp_path, Budget(60))
