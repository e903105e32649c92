"""The step that compares fp16 logits with fp32 logits, both computed on this GPU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from artifact.artifact import ARTIFACTS, Artifact
from artifact.golden import relative_error
from artifact.runtimes.base import load_runtime
from bench.gpu.check import AGAIN, DATA
from bench.gpu.process import Budget
from core.conditions import now
from core.errors import UserError, in_words
from core.preprocess import Pixels
from core.record_file import append_row, read_rows
from models.registry import DEFAULT_NETWORKS
from report.format import percent
from report.section import Section, Table

FILE = "parity.jsonl"
RUNTIMES = ("torch-cuda", "ort-cuda")
BATCHES = (1, 8, 32, 128)


@dataclass(frozen=True, kw_only=True)
class ParityRow:
    """Agreement of a batch's fp16 logits with the fp32 logits of the same runtime.

    Attributes:
        model: registry name.
        runtime: name of the runtime.
        batch: batch size.
        relative_error: largest absolute difference over the largest absolute fp32 logit; None if
            not measured, or if logits are not finite.
        agreement: fraction of images with the same top-1 class; None if not measured.
        finite: whether all fp16 logits are finite; None if not measured.
        reason: why it was not measured; None if it was.
        when: UTC date and time, ISO 8601.
    """

    model: str
    runtime: str
    batch: int
    relative_error: float | None = None
    agreement: float | None = None
    finite: bool | None = None
    reason: str | None = None
    when: str


def run(
    folder: Path,
    budget: Budget,
    *,
    names: Sequence[str] = DEFAULT_NETWORKS,
    runtimes: Sequence[str] = RUNTIMES,
    batches: Sequence[int] = BATCHES,
    artifacts: Path = ARTIFACTS,
) -> str:
    """Writes a row per network, runtime and batch size; returns the largest error in one line.

    Raises:
        UserError: nothing was compared; the message says why.
    """
    for name in names:
        for runtime in runtimes:
            if reason := budget.refusal(runtime):
                rows = _without(name, runtime, batches, reason)
            else:
                with budget.piece(runtime):
                    rows = list(compare(artifacts / f"{name}-{DATA}", name, runtime, batches))
            for row in rows:
                append_row(folder / FILE, row)
                print(row)
    rows = read_rows(folder / FILE, ParityRow, remedy=AGAIN)
    if all(row.reason for row in rows):
        raise UserError(_in_short(rows))
    return _in_short(rows)


def compare(folder: Path, model: str, runtime: str, batches: Sequence[int]) -> Iterator[ParityRow]:
    """Yields a row for each of ``batches``, with figures or the reason for their absence.

    Args:
        folder: folder of the network's artifacts, ``onnx-fp32`` and ``onnx-fp16``.
        model: registry name.
        runtime: name of the runtime.
        batches: batch sizes.
    """
    left = list(batches)
    try:
        with ExitStack() as stack:
            exact, half = (Artifact.load(folder / f"onnx-{p}") for p in ("fp32", "fp16"))
            reference, tried = (
                stack.enter_context(load_runtime(runtime, one)) for one in (exact, half)
            )
            for batch in batches:
                pixels = fill(exact, batch)
                expected, logits = reference(pixels), tried(pixels)
                finite = bool(np.isfinite(logits).all())
                left.remove(batch)
                yield ParityRow(
                    model=model,
                    runtime=runtime,
                    batch=batch,
                    relative_error=relative_error(logits, expected) if finite else None,
                    agreement=float(np.mean(logits.argmax(axis=1) == expected.argmax(axis=1))),
                    finite=finite,
                    when=now(),
                )
    except Exception as error:  # native runtimes raise any type; other networks may still work
        yield from _without(model, runtime, left, in_words(error))


def fill(artifact: Artifact, batch: int) -> Pixels:
    """Returns uint8 (batch, H, W, 3): the golden images of ``artifact``, then random pixels."""
    golden, _ = artifact.golden()
    count = max(0, batch - len(golden))
    noise = np.random.default_rng(1).integers(0, 256, (count, *golden.shape[1:]), dtype=np.uint8)
    return np.concatenate([golden[:batch], noise])


def parity_section(rows: Sequence[ParityRow]) -> Section | None:
    """Returns a section with a table of ``rows`` and the largest error; None without rows."""
    if not rows:
        return None
    header = ("Network", "Runtime", "Batch", "Relative error", "Top-1 agreement", "Finite", "Why")
    cells = tuple(
        (
            row.model,
            row.runtime,
            str(row.batch),
            "-" if row.relative_error is None else f"{row.relative_error:.1e}",
            "-" if row.agreement is None else percent(row.agreement),
            "-" if row.finite is None else "yes" if row.finite else "no",
            "" if row.reason is None else f"not measured: {row.reason}",
        )
        for row in rows
    )
    return Section(
        title="fp16 against fp32, computed here",
        sentences=(f"{_in_short(rows)}.",),
        tables=(Table(header=header, rows=cells, numeric=frozenset(header[2:5])),),
        notes=(
            "fp16 against fp32: logits of the same pixels in the same runtime, the golden images "
            "first and then random pixels. The error is the largest absolute difference over the "
            "largest absolute fp32 logit. With random weights the two largest logits can be close, "
            "so the top-1 of random pixels differs sooner than that of a trained network.",
        ),
    )


def _in_short(rows: Sequence[ParityRow]) -> str:
    found = [row for row in rows if row.finite]
    wrong = [row for row in rows if row.finite is False]
    missing = [row for row in rows if row.reason]
    parts = []
    if found:
        worst = max(found, key=lambda row: row.relative_error or 0.0)
        least = min(row.agreement or 0.0 for row in found)
        parts.append(
            f"largest relative error {worst.relative_error:.1e} ({worst.model}, {worst.runtime}, "
            f"batch {worst.batch}), top-1 agreement at least {percent(least)}, {len(found)} batches"
        )
    if wrong:
        first = wrong[0]
        parts.append(
            f"not finite in {len(wrong)} ({first.model}, {first.runtime}, batch {first.batch})"
        )
    if missing:
        parts.append(f"{len(missing)} not measured ({missing[0].reason})")
    return "; ".join(parts) or "nothing to compare"


def _without(model: str, runtime: str, batches: Sequence[int], reason: str) -> list[ParityRow]:
    return [
        ParityRow(model=model, runtime=runtime, batch=batch, reason=reason, when=now())
        for batch in batches
    ]
