"""All that only a GPU can show: a process for each step, and rows of what became of it.

A step that breaks CUDA breaks its own process only.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.gpu.budget import Budget
from bench.gpu.process import run_limited
from bench.gpu.steps import AGAIN, FILE, STEPS, Outcome, Step, state_of
from bench.gpu.summary import write_summary
from bench.measure.machine import this_machine
from core.cli import notes
from core.conditions import now
from core.errors import UserError, closest
from core.machine import Machine
from core.record_file import read_rows, write_rows
from training.fetch import data_folder

ROOT = Path(__file__).resolve().parents[2]
_LEAST = 5.0  # seconds; to import torch takes as long
_SPARE = 0.05  # share of its limit that a step leaves, to end by itself

# A step, the folder of the report, and the seconds it should take -> the command to run.
Commands = Callable[[Step, Path, float], Sequence[str]]


def step_command(step: Step, folder: Path, seconds: float) -> Sequence[str]:
    """Returns the command of a step, which runs in a folder that holds ``artifacts``."""
    options = ("--out", str(folder), "--seconds", f"{seconds:.1f}")
    return (sys.executable, "-m", "bench.gpu", step.name, *options)


def folder_name(gpu: str) -> str:
    """Returns what the folder of a GPU is called: ``nvidia-h100-80gb-hbm3``."""
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")


def choose(names: Sequence[str], steps: Sequence[Step] = STEPS) -> list[Step]:
    """Returns the steps of these names, what they need, and the last one, the report; or all.

    Raises:
        UserError: there is no such step.
    """
    known = [step.name for step in steps]
    for name in names:
        if name not in known:
            raise UserError(f"unknown step {name!r}: {closest(name, known)}")
    asked = {steps[-1].name, *(names or known)}
    asked |= {need for step in steps if step.name in asked for need in step.needs}
    return [step for step in steps if step.name in asked]


def run_check(
    folder: Path, budget: Budget, steps: Sequence[Step], commands: Commands = step_command
) -> list[Outcome]:
    """Returns what became of each of ``steps``; no step can end another one.

    Each gets its share of the time that is left. ``folder`` holds, after every step, a row for it
    in ``steps.jsonl``, its output in ``<step>.log`` and ``summary.md``; steps that are not asked
    for keep the rows that they have there.

    Args:
        folder: for all files; made if needed.
        budget: how long all of it may take.
        steps: what to do, the most important first.
        commands: how a step is started.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    machine, found = this_machine(), []
    earlier = read_rows(folder / FILE, Outcome, remedy=AGAIN)
    with TemporaryDirectory(prefix="gpu-check-") as work:
        for index, step in enumerate(steps):
            notes().print(f"{step.title} ...")
            limit = budget.share([one.weight for one in steps[index:]])
            outcome = _run(step, folder, Path(work), limit, budget, machine, commands)
            found.append(outcome)
            notes().print(f"{step.title}: {outcome.result}", soft_wrap=True)
            known = {one.step: one for one in (*earlier, *found)}
            rows = [known[one.name] for one in STEPS if one.name in known]
            rows += [one for name, one in known.items() if name not in {s.name for s in STEPS}]
            write_rows(folder / FILE, rows)
            write_summary(rows, folder)
    return found


def _run(
    step: Step,
    folder: Path,
    work: Path,
    limit: float,
    budget: Budget,
    machine: Machine,
    commands: Commands,
) -> Outcome:
    when = now()
    if limit < _LEAST:
        reason = f"no time left ({budget.used:.0f} s of {budget.seconds:.0f})"
        return Outcome(
            step=step.name,
            title=step.title,
            state="not measured",
            result=f"not measured: {reason}",
            seconds=0.0,
            limit=limit,
            when=when,
            machine=machine,
        )
    for name in step.files:
        (folder / name).unlink(missing_ok=True)
    ended = run_limited(
        commands(step, folder, limit * (1 - _SPARE)),
        log=folder / f"{step.name}.log",
        limit=limit,
        folder=work,
        environment=_environment(),
    )
    state, result = state_of(ended)
    return Outcome(
        step=step.name,
        title=step.title,
        state=state,
        result=result,
        seconds=ended.seconds,
        limit=limit,
        when=when,
        machine=machine,
    )


def _environment() -> dict[str, str]:
    """Returns the environment of a step, which runs in another folder."""
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *([path] if path else [])]),
        "PYTHONUNBUFFERED": "1",
        "POCKETNETS_DATA": str(data_folder().resolve()),
    }
