"""The steps of a check on a GPU, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.gpu.process import Ended
from core.machine import Machine

FILE = "steps.jsonl"
AGAIN = "run that step again"  # how to mend rows that cannot be understood
State = Literal["done", "failed", "stopped", "not measured"]


@dataclass(frozen=True, slots=True)
class Step:
    """A part of a check that runs in a process of its own.

    Attributes:
        name: for the command line and its files.
        title: a few words.
        module: has run(folder, budget), which returns what it found in one line.
        weight: its share of the time, among the weights of all steps that are still to come.
        files: what an earlier run left of it in the folder, deleted when it begins anew.
        needs: names of steps whose artifacts it takes.
    """

    name: str
    title: str
    module: str
    weight: float
    files: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


_EXPORTS = ("exports",)
# In the order of their worth; latency and what follows need the exports. An export of twelve
# networks keeps 16 cores busy for about a minute and a half.
STEPS = (
    Step("tests", "Tests marked gpu", "bench.gpu.suite", 60),
    Step("training", "Training", "bench.gpu.training", 120, ("training.jsonl",)),
    Step("exports", "Exports", "bench.gpu.exports", 85, ("exports.jsonl",)),
    Step("latency", "Latency against MACs", "bench.gpu.latency", 105, needs=_EXPORTS),
    Step("study", "ShuffleNetV2's guidelines", "bench.gpu.study", 40),
    Step("parity", "fp16 against fp32", "bench.gpu.parity", 35, ("parity.jsonl",), _EXPORTS),
    Step("roofline", "Lower limits", "bench.gpu.limits", 20, ("limits.jsonl",), _EXPORTS),
    Step("engine", "Engines of TensorRT", "bench.gpu.engine", 15, ("engines.jsonl",)),
    Step("report", "The report", "bench.gpu.page", 30),
)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a step.

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
