"""The GPU check: runs each step in its own process, for a share of the time, and records it.

A step that leaves CUDA in an error state therefore does not affect the others.
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
DATA = "random"  # data name of artifacts with random weights
AGAIN = "run that step again"  # remedy for rows that cannot be read
State = Literal["done", "failed", "stopped", "not measured"]
SUMMARY = "summary.md"
HTML = "report.html"
_HEADER = ("Step", "Result", "Seconds")
ROOT = Path(__file__).resolve().parents[2]
_LEAST = 5.0  # seconds; importing torch alone takes this long
_SPARE = 0.05  # fraction of a step's limit that is reserved for a regular exit


@dataclass(frozen=True, slots=True)
class Step:
    """A part of the check that runs in its own process.

    Attributes:
        name: name on the command line and of the log file.
        title: name in the report.
        run: ``module:callable`` that takes (folder, budget) and returns its result in one line.
        weight: weight for sharing the time among this step and those after it.
        files: result files that are deleted before the step runs.
        needs: names of steps whose artifacts this step uses.
    """

    name: str
    title: str
    run: str
    weight: float
    files: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


_EXPORTS = ("exports",)
# The most important first; some need the exports. The weights are seconds on an H100 with 16 cores:
# exporting twelve networks took 110 s there, the latency of one network at two batch sizes 70 s.
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
        step: name of the step.
        title: title of the step.
        state: ``done``, ``failed`` (with an error), ``stopped`` (at its time limit) or ``not
            measured`` (never started).
        result: the step's result, or why it has none, in one line.
        seconds: run time.
        limit: time limit in seconds.
        when: UTC date and time of the start, ISO 8601.
        machine: the machine, with the versions of the libraries.
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
    """Returns the state of a step whose process has ended, and its result or error."""
    if ended.status == 0:
        return "done", ended.result or "done"
    state: State = "stopped" if ended.status is None else "failed"
    return state, "; ".join(filter(None, (ended.result, ended.reason)))


def summary_table(outcomes: Sequence[Outcome]) -> Table:
    """Returns a table with the title, result and seconds of each step."""
    return Table(
        header=_HEADER,
        rows=tuple(map(_cells, outcomes)),
        numeric=frozenset({"Seconds"}),
        strong=frozenset(n for n, one in enumerate(outcomes) if one.state != "done"),
    )


def write_summary(outcomes: Sequence[Outcome], folder: Path) -> Path:
    """Writes ``summary.md`` with GPU, versions, dates and results; returns its path."""
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


# Takes a step, the folder of the report and the time limit in seconds; returns the command to run.
Commands = Callable[[Step, Path, float], Sequence[str]]


def step_command(step: Step, folder: Path, seconds: float) -> Sequence[str]:
    """Returns the command that runs a step; its working directory must contain ``artifacts``."""
    options = ("--out", str(folder), "--seconds", f"{seconds:.1f}")
    return (sys.executable, "-m", "bench.gpu", step.name, *options)


def folder_name(gpu: str) -> str:
    """Returns the folder name for a GPU, such as ``nvidia-h100-80gb-hbm3``."""
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-")


def choose(names: Sequence[str], steps: Sequence[Step] = STEPS) -> list[Step]:
    """Returns the named steps, those they need, and the report; without names all steps.

    Raises:
        UserError: unknown step.
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
    """Runs ``steps`` and returns their outcomes; the others continue when one fails.

    Each step gets its share of the remaining time. After each, ``folder`` has its row in
    ``steps.jsonl``, its output in ``<step>.log``, and an updated ``summary.md``. Rows of other
    steps from earlier runs are kept.

    Args:
        folder: output folder; created if needed.
        budget: time for all steps.
        steps: steps to run, the most important first.
        commands: returns the command of a step.
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
    """Returns the environment variables of a step, which has another working directory."""
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *([path] if path else [])]),
        "PYTHONUNBUFFERED": "1",
        "POCKETNETS_DATA": str(data_folder().resolve()),
    }
