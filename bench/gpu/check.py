"""The GPU check: a process and a share of the time for each step, and a row for its outcome.

A step that breaks CUDA breaks its own process only.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from bench.experiment import this_machine
from bench.gpu.process import Budget, Ended, run_limited
from core.cli import notes
from core.conditions import now
from core.errors import UserError, closest
from core.files import write_whole
from core.machine import Machine
from core.record_file import read_rows, write_rows
from report.markdown import pipe
from report.section import Table
from training.fetch import data_folder

FILE = "steps.jsonl"
DATA = "random"  # what artifacts of random weights are filed under
AGAIN = "run that step again"  # how to mend rows that cannot be understood
State = Literal["done", "failed", "stopped", "not measured"]
SUMMARY = "summary.md"
HTML = "report.html"
_HEADER = ("Step", "Result", "Seconds")
ROOT = Path(__file__).resolve().parents[2]
_LEAST = 5.0  # seconds; to import torch takes as long
_SPARE = 0.05  # share of its limit that a step leaves, to end by itself


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a check that runs in a process of its own.

    Attributes:
        name: for the command line and its files.
        title: a few words.
        run: ``module:callable`` of (folder, budget), which returns what it found in one line.
        weight: its share of the time, among the weights of all steps that are still to come.
        files: what an earlier run left of it in the folder, deleted when it begins anew.
        needs: names of steps whose artifacts it takes.
    """

    name: str
    title: str
    run: str
    weight: float
    files: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


_EXPORTS = ("exports",)
# In the order of their worth; latency and what follows need the exports. The weights are seconds
# beside an H100 with 16 cores: to export twelve networks took 110 there, the latency of one network
# at two batch sizes 70.
STEPS = (
    Step("tests", "Tests marked gpu", "bench.gpu.steps:run_tests", 90),
    Step("training", "Training", "bench.gpu.training:run", 300, ("training.jsonl",)),
    Step("exports", "Exports", "bench.gpu.steps:run_exports", 120, ("exports.jsonl",)),
    Step("latency", "Latency against MACs", "bench.gpu.latency:run", 900, needs=_EXPORTS),
    Step("study", "ShuffleNetV2's guidelines", "bench.gpu.steps:run_guidelines", 150),
    Step("parity", "fp16 against fp32", "bench.gpu.parity:run", 300, ("parity.jsonl",), _EXPORTS),
    Step("roofline", "Lower limits", "bench.gpu.limits:run", 20, ("limits.jsonl",), _EXPORTS),
    Step("engine", "Engines of TensorRT", "bench.gpu.engine:run", 30, ("engines.jsonl",)),
    Step("report", "The report", "bench.gpu.sections:run", 40),
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a step.

    Attributes:
        step: its name.
        title: its title.
        state: done; failed: it ended with an error; stopped: at its time limit; or it was not
            begun.
        result: what it found, or in words why it did not, in one line.
        seconds: how long it ran.
        limit: how long it might have run.
        when: UTC date and time of its start, ISO 8601.
        machine: what it ran on, with the versions of the libraries.
    """

    step: str
    title: str
    state: State
    result: str
    seconds: float
    limit: float
    when: str
    machine: Machine


def state_of(ended: Ended) -> tuple[State, str]:
    """Returns the state of a step whose process has ended, and its result or reason."""
    if ended.status == 0:
        return "done", ended.result or "done"
    state: State = "stopped" if ended.status is None else "failed"
    return state, "; ".join(filter(None, (ended.result, ended.reason)))


def summary_table(outcomes: Sequence[Outcome]) -> Table:
    """Returns a row for each step: its title, its result in one line, and its seconds."""
    return Table(
        header=_HEADER,
        rows=tuple(map(_cells, outcomes)),
        numeric=frozenset({"Seconds"}),
        strong=frozenset(n for n, one in enumerate(outcomes) if one.state != "done"),
    )


def write_summary(outcomes: Sequence[Outcome], folder: Path) -> Path:
    """Returns the page in ``folder``: which GPU, which versions, which date, and each result."""
    machines = list(dict.fromkeys(map(_facts, (one.machine for one in outcomes))))
    gpu = outcomes[-1].machine.gpu or "a GPU"
    lines = [f"# What was measured on {gpu}", ""]
    for number, facts in enumerate(machines, start=1):
        label = f"Machine {number}: " if len(machines) > 1 else ""
        lines += [f"{label}{facts}.", ""]
    header = (*_HEADER, "Of", "Date", *(("Machine",) if len(machines) > 1 else ()))
    rows = []
    for one in outcomes:
        cells = [*_cells(one), f"{one.limit:.0f}", one.when]
        if len(machines) > 1:
            cells.append(str(machines.index(_facts(one.machine)) + 1))
        rows.append(tuple(cells))
    numeric = frozenset({"Seconds", "Of"})
    lines += pipe(Table(header=header, rows=tuple(rows), numeric=numeric))
    lines += [
        "",
        "Seconds: how long the step took; Of: its share of the time. A step that was stopped at "
        "its share keeps the rows that it had found by then. What is not in a file here was not "
        "measured.",
        "",
    ]
    if files := sorted(file.name for file in folder.iterdir() if _is_shown(file)):
        lines += ["Files: " + ", ".join(f"[{name}]({name})" for name in files) + ".", ""]
    return write_whole(folder / SUMMARY, "\n".join(lines).encode())


def _cells(one: Outcome) -> tuple[str, str, str]:
    result = f"failed: {one.result}" if one.state == "failed" else one.result
    return one.title, result, f"{one.seconds:.0f}"


def _facts(machine: Machine) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    gpu = f"{machine.gpu or 'no GPU named'}, driver {machine.driver or 'not named'}"
    return f"{gpu}; {machine.cpu}, {machine.cores} usable cores; {machine.os}; {versions}"


def _is_shown(file: Path) -> bool:
    return file.suffix in (".html", ".jsonl", ".json", ".md", ".png") and file.name != SUMMARY


# A step, the folder of the report, and the seconds it should take -> the command to run.
Commands = Callable[[Step, Path, float], Sequence[str]]


def step_command(step: Step, folder: Path, seconds: float) -> Sequence[str]:
    """Returns the command of a step, which runs in a folder that holds ``artifacts``."""
    options = ("--out", str(folder), "--seconds", f"{seconds:.1f}")
    return (sys.executable, "-m", "bench.gpu", step.name, *options)


def folder_name(gpu: str) -> str:
    """Returns the name of a GPU's folder: ``nvidia-h100-80gb-hbm3``."""
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")


def choose(names: Sequence[str], steps: Sequence[Step] = STEPS) -> list[Step]:
    """Returns the named steps with those they need and the report; all of them without names.

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
    """Returns the outcome of each of ``steps``; one that fails does not end the others.

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
