"""The step that exports the default networks, for the steps that run them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from artifact.artifact import ARTIFACTS
from bench.gpu.budget import Budget
from core.errors import UserError
from core.record_file import append_row
from models.cost import known_costs
from models.registry import DEFAULT_NETWORKS

FILE = "exports.jsonl"
DATA = "random"  # what artifacts of random weights are filed under
FORMATS = ("onnx-fp32", "onnx-fp16")
MAX_BATCH = 128


@dataclass(frozen=True, kw_only=True)
class Export:
    """What became of one artifact.

    Attributes:
        model: registry name.
        target: such as ``onnx-fp16``; ``all`` where nothing of the network could be exported.
        reason: why it is not there; None if it is.
        seconds: since the step began.
    """

    model: str
    target: str
    reason: str | None
    seconds: float


def run(
    folder: Path, budget: Budget, *, names: Sequence[str] = DEFAULT_NETWORKS, batch: int = MAX_BATCH
) -> str:
    """Returns how many artifacts of ``names`` there are now in ``artifacts``, random weights.

    Raises:
        UserError: there is none.
    """
    from core.cores import usable_cores
    from export.build import Options
    from export.jobs import Job, run_jobs

    formats = FORMATS + (("tensorrt-fp16",) if find_spec("tensorrt") else ())
    costs = known_costs()
    # The dearest first, on two cores each: one of them alone would take longer than all others.
    order = sorted(names, key=lambda name: -costs[name].macs if name in costs else 0)
    jobs = [
        Job(
            model=name,
            data=None,
            weights="random",
            targets=formats,
            options=Options(max_batch=batch, resume=True),
        )
        for name in order
    ]
    made, missing = 0, []
    for job, outcomes in run_jobs(jobs, max(1, usable_cores() // 2)):
        for outcome in outcomes:
            row = Export(
                model=job.model,
                target=outcome.target,
                reason=None if outcome.artifact else outcome.reason or "no reason given",
                seconds=round(budget.used, 1),
            )
            append_row(folder / FILE, row)
            print(f"{row.seconds:6.1f} s  {row.model} {row.target}: {row.reason or 'done'}")
            made += row.reason is None
            missing += [f"{row.model} {row.target}: {row.reason}"] * (row.reason is not None)
    if not made:
        raise UserError(f"no artifact could be made; {missing[0]}")
    text = f"{made} artifacts of {len(names)} networks in {ARTIFACTS}, batch 1 to {batch}"
    return "; not made: ".join([text, *missing[:1]]) + (" and others" if len(missing) > 1 else "")
