"""The steps that run code of other packages: the tests, the exports and a study."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from artifact.artifact import ARTIFACTS
from bench.experiment import write_page
from bench.gpu.process import Budget
from bench.studies.measure import find_study, run_study
from bench.studies.sections import study_section
from bench.studies.variants import Platform
from core.errors import UserError
from core.record_file import append_row
from models.cost import known_costs
from models.registry import DEFAULT_NETWORKS

ROOT = Path(__file__).resolve().parents[2]
_MARK = "pytest.mark.gpu"
FILE = "exports.jsonl"
FORMATS = ("onnx-fp32", "onnx-fp16")
MAX_BATCH = 128
NAME = "guidelines"
_SECONDS = 0.1  # least total time of a candidate's samples


def run_tests(folder: Path, budget: Budget, *, root: Path = ROOT) -> str:
    """Runs the tests marked ``gpu``; returns pytest's last line, which counts skipped tests too.

    Raises:
        UserError: no test is marked, a test fails, or all are skipped.
    """
    # Only files with such tests: others may need packages that are not installed here.
    tests = root / "tests"
    files = [file for file in sorted(tests.rglob("test_*.py")) if _MARK in file.read_text()]
    if not files:
        raise UserError(f"{tests}: no test here is marked gpu; is this the project's whole folder?")
    # Warnings are not errors, as the installed versions may differ from the pinned ones.
    options = ("-m", "gpu", "-q", "-p", "no:cacheprovider", "-W", "default")
    command = [sys.executable, "-m", "pytest", *options, *map(str, files)]
    done = subprocess.run(
        command, cwd=root, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    print(done.stdout)
    lines = [line.strip("= ") for line in done.stdout.splitlines() if line.strip()]
    last = lines[-1] if lines else "pytest said nothing"
    if done.returncode:
        raise UserError(f"pytest ends with {done.returncode}: {last}; see tests.log")
    if " passed" not in f" {last}":
        raise UserError(f"no test ran: {last}")
    return last


@dataclass(frozen=True, kw_only=True)
class Export:
    """The outcome of exporting one artifact.

    Attributes:
        model: registry name.
        target: name of the artifact, such as ``onnx-fp16``; ``all`` if the network cannot be
            exported at all.
        reason: why it was not built; None if it was.
        seconds: time since the start of the step.
    """

    model: str
    target: str
    reason: str | None
    seconds: float


def run_exports(
    folder: Path, budget: Budget, *, names: Sequence[str] = DEFAULT_NETWORKS, batch: int = MAX_BATCH
) -> str:
    """Returns how many artifacts of ``names`` there are now in ``artifacts``, random weights.

    Raises:
        UserError: there is none.
    """
    from core.cores import usable_cores
    from export.build import Options
    from export.jobs import Job, run_jobs

    formats = FORMATS + (("tensorrt-fp16",) if find_spec("tensorrt") else ())
    costs = known_costs()
    # The most expensive first, on two cores each, so that none of them runs alone at the end.
    order = sorted(names, key=lambda name: -costs[name].macs if name in costs else 0)
    jobs = [
        Job(
            model=name,
            data=None,
            weights="random",
            targets=formats,
            options=Options(max_batch=batch, resume=True),
        )
        for name in order
    ]
    made, missing = 0, []
    for job, outcomes in run_jobs(jobs, max(1, usable_cores() // 2)):
        for outcome in outcomes:
            row = Export(
                model=job.model,
                target=outcome.target,
                reason=None if outcome.artifact else outcome.reason or "no reason given",
                seconds=round(budget.used, 1),
            )
            append_row(folder / FILE, row)
            print(f"{row.seconds:6.1f} s  {row.model} {row.target}: {row.reason or 'done'}")
            made += row.reason is None
            missing += [f"{row.model} {row.target}: {row.reason}"] * (row.reason is not None)
    if not made:
        raise UserError(f"no artifact could be made; {missing[0]}")
    text = f"{made} artifacts of {len(names)} networks in {ARTIFACTS}, batch 1 to {batch}"
    return "; not made: ".join([text, *missing[:1]]) + (" and others" if len(missing) > 1 else "")


def run_guidelines(folder: Path, budget: Budget, *, name: str = NAME, on: Platform = "GPU") -> str:
    """Runs the study, writes its page into ``folder``, and returns its verdicts in one line.

    Raises:
        UserError: the CUDA graph of a network has other outputs than the network.
    """
    found = run_study(name, folder, seconds=_SECONDS, on=(on,))
    study, results = find_study(name), found[on]
    write_page(study_section(study, found), folder / f"study-{name}.md")
    runtime = results.runtimes[0]
    claims = [
        f"{claim.text.partition(':')[0]} {verdict.word}"
        for claim in study.claims
        if (verdict := claim.judge(results, runtime)) is not None
    ]
    return ", ".join(claims)
