"""The guidelines as a step; they are asked of a CPU here, of few variants."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import bench.gpu.steps
import bench.studies.measure
from bench.gpu.process import Budget
from bench.gpu.steps import run_guidelines as run
from bench.studies import guidelines
from bench.studies.variants import Platform, Variant


def few(platform: Platform) -> list[Variant]:
    """Returns two variants of each guideline, on 4x4 inputs."""
    groups: dict[str, list[Variant]] = {}
    for variant in guidelines.variants(platform):
        groups.setdefault(variant.group, []).append(variant)
    chosen = [variant for group in groups.values() for variant in (group[0], group[-1])]
    return [dataclasses.replace(v, shape=(v.shape[0], 4, 4)) for v in chosen if "x1" in v.group]


def test_claims_are_judged_and_the_page_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = dataclasses.replace(guidelines.STUDY, variants=few)
    for module in (bench.gpu.steps, bench.studies.measure):
        monkeypatch.setattr(module, "find_study", lambda name: study)
    monkeypatch.setattr(bench.studies.measure, "runtimes", lambda platform: ["torch"])
    monkeypatch.setattr(bench.gpu.steps, "_SECONDS", 0.0)
    monkeypatch.setattr(bench.studies.measure, "COUNT", 24)
    said = run(tmp_path, Budget(60), on="CPU")
    names, verdicts = zip(*(part.split(maxsplit=1) for part in said.split(", ")), strict=True)
    assert names == ("G1", "G2", "G3", "G4")
    assert set(verdicts) <= {"holds", "does not hold", "a tie"}
    page = (tmp_path / "study-guidelines.md").read_text()
    assert "As a CUDA graph" not in page
    assert (tmp_path / "study-guidelines.jsonl").exists()
