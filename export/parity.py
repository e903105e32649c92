"""Agreement of a runtime with the logits that are right, at every batch size. No torch here."""

from __future__ import annotations

import numpy as np

from export.artifact import Artifact
from export.golden import relative_error
from export.records import Logits, Parity, Reference
from export.runtimes.base import Runtime, load_runtime, run_batches
from models.preprocess import Pixels


def parity_batches(batch_range: tuple[int, int]) -> tuple[int, ...]:
    """Returns the batch sizes to check: 1, 2, 8 and the largest, as far as they are allowed."""
    smallest, largest = batch_range
    return tuple(sorted({b for b in (1, 2, 8, largest) if smallest <= b <= largest}))


def measure_parity(
    runtime: Runtime,
    artifact: Artifact,
    pixels: Pixels,
    expected: Logits,
    *,
    reference: Reference,
    golden: tuple[Pixels, Logits],
) -> Parity:
    """Returns how ``runtime`` agrees with ``expected``, the worst of all batch sizes.

    Args:
        runtime: what is being checked.
        artifact: what it runs; loaded once more to reproduce the golden batch.
        pixels: uint8 (n, H, W, 3) of real images; a last batch may be smaller.
        expected: float32 (n, C), the right logits of them.
        reference: whose logits those are.
        golden: uint8 (m, H, W, 3) and the float32 (m, C) they must give.
    """
    batches = parity_batches(artifact.batch_range)
    answers = [run_batches(runtime, pixels, batch) for batch in batches]
    right = expected.argmax(axis=1)
    with load_runtime(runtime.name, artifact) as again:
        golden_error = relative_error(
            run_batches(again, golden[0], artifact.batch_range[1]), golden[1]
        )
    return Parity(
        runtime=runtime.name,
        reference=reference,
        images=len(pixels),
        batches=batches,
        finite=all(bool(np.isfinite(logits).all()) for logits in answers),
        top1_agreement=min(float(np.mean(a.argmax(axis=1) == right)) for a in answers),
        relative_error=max(relative_error(logits, expected) for logits in answers),
        golden_error=golden_error,
    )
