"""``python -m bench gpu-check``: all that only a GPU can show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from artifact.runtimes.gpu import require_gpu
from bench.gpu.check import choose, folder_name, run_check, summary_table
from bench.gpu.process import Budget, seconds_of
from core.cli import results
from report.terminal import print_table


@dataclass(frozen=True, kw_only=True)
class GpuCheck:
    """On an NVIDIA GPU: test, train, measure and compare all that other machines cannot."""

    budget: str = "35m"
    """How long all of it may take."""
    out: Path = Path("reports/gpu")
    """Gets a folder called like the GPU."""
    only: tuple[str, ...] = ()
    """Only these steps, and the report: tests, training, exports, latency, study, parity, roofline,
    engine. What the others found before stays, and latency goes on where it stopped."""

    def __call__(self) -> int:
        """Prints a table of the steps, the folder last; returns 1 unless all of them are done."""
        budget, steps = Budget(seconds_of(self.budget)), choose(self.only)
        folder = self.out / folder_name(require_gpu("gpu-check").name)
        outcomes = run_check(folder, budget, steps)
        print_table(summary_table(outcomes))
        results().print(folder)
        return int(any(one.state != "done" for one in outcomes))
