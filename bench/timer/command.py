"""``python -m bench timer``: compares our timer with other tools."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from artifact.artifact import Artifact
from bench.experiment import print_section
from bench.timer.measure import crosscheck, crosscheck_section, passed


@dataclass(frozen=True, kw_only=True)
class Timer:
    """Compare our timer with the runtimes' own tools, interleaved, on one artifact."""

    artifact: tyro.conf.Positional[Path]
    """Folder of an onnx artifact; a call of a few tenths of a ms is too short for a verdict."""
    batch: int = 1
    """Batch size."""
    threads: int = 1
    """CPU threads inside one call."""
    rounds: int = 5
    """Runs of each tool; the median of their ratios is compared."""
    seconds: float = 4.0
    """Seconds of each timer in each round, in turns of a fraction of a second."""

    def __call__(self) -> int:
        """Prints every round; returns 0 if all tools that were compared, at least one, agree.

        Otherwise it returns 1 and prints what disagrees, what failed, or why there is no verdict.
        """
        checks = crosscheck(
            Artifact.load(self.artifact),
            batch=self.batch,
            threads=self.threads,
            rounds=self.rounds,
            seconds=self.seconds,
        )
        print_section(crosscheck_section(checks))
        return 0 if passed(checks) else 1
