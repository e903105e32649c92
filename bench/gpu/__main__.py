"""``python -m bench.gpu <step>``: runs one step of the check; reads ``./artifacts``."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from pathlib import Path

import tyro

from bench.gpu.check import STEPS
from bench.gpu.process import RESULT, Budget
from core.cli import run
from core.errors import UserError, closest
from core.lazy import resolve


@dataclass(frozen=True, kw_only=True)
class StepRun:
    """Run one step of the GPU check."""

    step: tyro.conf.Positional[str]
    """Name of the step."""
    out: Path
    """Folder of the report."""
    seconds: float
    """Time limit of the step in seconds."""

    def __call__(self) -> None:
        """Runs the step and prints its result on one line."""
        steps = {step.name: step.run for step in STEPS}
        if self.step not in steps:
            raise UserError(f"unknown step {self.step!r}: {closest(self.step, steps)}")
        signal.signal(signal.SIGTERM, _stop)
        print(f"{RESULT}{resolve(steps[self.step])(self.out, Budget(self.seconds))}")


def _stop(*_: object) -> None:
    """Interrupts the current measurement, which is then recorded as failed."""
    raise UserError("stopped at its time limit")


if __name__ == "__main__":
    run(lambda: tyro.cli(StepRun, prog="python -m bench.gpu")())
