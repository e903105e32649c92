"""``python -m bench timer``: our timer against other tools."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from artifact.artifact import Artifact
from bench.experiment import print_section
from bench.timer.measure import crosscheck, crosscheck_section, passed


@dataclass(frozen=True, kw_only=True)
class Timer:
    """Hold our timer against the runtimes' own tools, interleaved on one artifact."""

    artifact: tyro.conf.Positional[Path]
    """Folder of an onnx artifact; a network of a few tenths of a ms is too short to judge by."""
    batch: int = 1
    """Images per call."""
    threads: int = 1
    """CPU threads inside one call."""
    rounds: int = 5
    """Runs of each tool; the median of their ratios counts."""
    seconds: float = 4.0
    """Of measuring with each timer in each round, in turns of a fraction of a second."""

    def __call__(self) -> int:
        """Prints every round; returns 0 where a tool was compared and all that were agree.

        Else it is 1, with what does not agree, what failed, or why nothing could be judged.
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
