"""The step that asks ShuffleNetV2's guidelines of this GPU."""

from __future__ import annotations

from pathlib import Path

from bench.gpu.budget import Budget
from bench.studies.page import study_section, write_study
from bench.studies.study import find_study, run_study
from bench.studies.variants import Platform

NAME = "guidelines"
_SECONDS = 0.1  # of samples of a candidate, at least


def run(folder: Path, budget: Budget, *, name: str = NAME, on: Platform = "GPU") -> str:
    """Returns in how far each claim holds here; the page of the study is in ``folder``.

    Raises:
        UserError: a network whose CUDA graph computes something else.
    """
    found = run_study(name, folder, seconds=_SECONDS, on=(on,))
    study, results = find_study(name), found[on]
    write_study(name, study_section(study, found), folder)
    runtime = results.runtimes[0]
    claims = [
        f"{claim.text.partition(':')[0]} {verdict.word}"
        for claim in study.claims
        if (verdict := claim.judge(results, runtime)) is not None
    ]
    return ", ".join(claims)
