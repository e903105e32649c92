"""The step that measures latency, network by network; a network's candidates are interleaved."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from artifact.artifact import ARTIFACTS
from artifact.records import Precision
from bench.experiment import this_machine
from bench.gpu.check import DATA
from bench.gpu.process import Budget
from bench.latency.measure import run_sweep
from bench.latency.plan import Grid
from bench.latency.record import Row, Sweep, earlier_sweep, write_sweep
from bench.measure.timing import Plan
from core.conditions import conditions, now
from core.errors import UserError
from models.registry import DEFAULT_NETWORKS

RUNTIMES = ("torch-cuda", "ort-cuda", "tensorrt")
COMPILED = "torch-cuda-compile"
# The extremes first: they show whether kernel launches or computation dominate.
BATCHES = ((1, 128), (8, 32))
# Compiling a network for one precision and batch size takes 20 to 60 s.
TO_COMPILE = (("mobilenet_v3_large", (1,)), ("resnet50", (1,)), ("mobilenet_v3_large", (128,)))
_COMPILING = 45.0  # seconds, estimated
PLAN = Plan(count=60, seconds=0.0, limit=0.15, rounds=6)


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Candidates that are measured together: a network at some batch sizes in some runtimes."""

    model: str
    runtimes: tuple[str, ...]
    batches: tuple[int, ...]

    @property
    def kind(self) -> str:
        """Returns the kind for :class:`Budget`: pieces of a kind take about equally long."""
        return f"{', '.join(self.runtimes)} at batch {', '.join(map(str, self.batches))}"


def pieces(
    names: Sequence[str] = DEFAULT_NETWORKS,
    runtimes: tuple[str, ...] = RUNTIMES,
    batches: Sequence[tuple[int, ...]] = BATCHES,
    to_compile: Sequence[tuple[str, tuple[int, ...]]] = TO_COMPILE,
) -> list[Piece]:
    """Returns all pieces to measure, the most important first."""
    found = [
        Piece(model=name, runtimes=runtimes, batches=some) for some in batches for name in names
    ]
    return found + [
        Piece(model=name, runtimes=(COMPILED,), batches=some) for name, some in to_compile
    ]


def run(
    folder: Path,
    budget: Budget,
    *,
    todo: Sequence[Piece] | None = None,
    artifacts: Path = ARTIFACTS,
    plan: Plan = PLAN,
) -> str:
    """Measures ``todo``, writes the sweep into ``folder``, and returns a summary in one line.

    Rows of the same artifacts from an earlier run on this machine are not measured again. A piece
    that is not measured gets rows with the reason.

    Raises:
        UserError: nothing was measured; the message says why.
    """
    sweep = earlier_sweep(folder, fresh=True)
    for piece in pieces() if todo is None else todo:
        work = partial(run_sweep, _grid(piece, artifacts), plan, known=sweep)
        expected = _COMPILING if COMPILED in piece.runtimes else 0.0
        found = budget.attempt(piece.kind, work, expected)
        sweep = without(sweep, piece, found, plan) if isinstance(found, str) else found
        write_sweep(sweep, folder)
        said = found if isinstance(found, str) else "measured"
        print(f"{budget.used:6.1f} s  {piece.model}, {piece.kind}: {said}")
        _free()
    assert sweep is not None, "there is something to do"
    return _in_short(sweep)


def _in_short(sweep: Sweep) -> str:
    """Returns how much was measured, in one line; raises it as a UserError if nothing was."""
    measured = sweep.measured()
    networks = len({row.network for row in measured})
    text = f"{len(measured)} of {len(sweep.rows)} candidates of {networks} networks measured"
    reasons = list(dict.fromkeys(row.reason for row in sweep.rows if row.reason))
    if reasons:
        text += f"; not measured: {reasons[0]}"
    if len(reasons) > 1:
        text += f" and {len(reasons) - 1} other reasons"
    if not measured:
        raise UserError(text)
    return text


def without(sweep: Sweep | None, piece: Piece, reason: str, plan: Plan) -> Sweep:
    """Returns ``sweep`` with rows that hold ``reason`` for the missing candidates of ``piece``."""
    state = conditions()
    if sweep is None:
        sweep = Sweep(machine=this_machine(), plan=plan, rows=(), before=state, after=state)
    rows = {row.key: row for row in sweep.rows}
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    for precision in precisions:
        for runtime in piece.runtimes:
            if runtime == "tensorrt":  # an artifact of its own; the engine step records its reason
                continue
            for batch in piece.batches:
                row = Row(
                    model=piece.model,
                    data=DATA,
                    folder=f"{piece.model}-{DATA}/onnx-{precision}",
                    format="onnx",
                    precision=precision,
                    runtime=runtime,
                    batch=batch,
                    threads=1,
                    reason=reason,
                    machine=sweep.machine.key,
                    when=now(),
                )
                rows.setdefault(row.key, row)
    ordered = tuple(sorted(rows.values(), key=lambda row: row.folder))
    return replace(sweep, rows=ordered, after=state)


def _grid(piece: Piece, artifacts: Path) -> Grid:
    return Grid(
        artifacts=artifacts,
        model=piece.model,
        data=DATA,
        batches=piece.batches,
        runtimes=piece.runtimes,
        compile=COMPILED in piece.runtimes,
    )


def _free() -> None:
    """Frees the GPU memory of a network before the next is measured."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
