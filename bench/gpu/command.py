"""``python -m bench gpu-check``: everything that can be checked only on a GPU."""

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
    """Run the tests, trainings and measurements that need an NVIDIA GPU."""

    budget: str = "35m"
    """Time limit for all steps together, such as 8m30s."""
    out: Path = Path("reports/gpu")
    """Folder of the results; each GPU has its own folder in it."""
    only: tuple[str, ...] = ()
    """Only these steps, and the report: tests, training, exports, latency, study, parity, roofline,
    engine. Earlier results of the other steps are kept, and latency resumes where it stopped."""

    def __call__(self) -> int:
        """Prints a table of the steps, then the folder; returns 1 unless all steps are done."""
        budget, steps = Budget(seconds_of(self.budget)), choose(self.only)
        folder = self.out / folder_name(require_gpu("gpu-check").name)
        outcomes = run_check(folder, budget, steps)
        print_table(summary_table(outcomes))
        results().print(folder)
        return int(any(one.state != "done" for one in outcomes))
