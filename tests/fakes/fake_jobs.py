"""What may become of a process that exports: importable there, where tests are not."""

from __future__ import annotations

import os
import signal
import time

from export.build import Outcome
from export.jobs import Job


def killed(job: Job) -> list[Outcome]:
    """Is what happens when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
    return []


def slow(job: Job) -> list[Outcome]:
    """Takes minutes, but for the first network."""
    if job.model != "first":
        time.sleep(300)
    return []


def broken(job: Job) -> list[Outcome]:
    """Raises what nobody foresaw."""
    raise ValueError("not foreseen\nby anyone")


def cores(job: Job) -> list[Outcome]:
    """Returns the cores it may run on, as a target."""
    return [Outcome(str(sorted(os.sched_getaffinity(0))), reason="")]
