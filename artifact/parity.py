"""Agreement of a runtime with reference logits, at every batch size."""

from __future__ import annotations

import numpy as np

from artifact.answering import agreement, answering_of
from artifact.artifact import Artifact
from artifact.golden import relative_error
from artifact.records import Logits, Parity, Reference
from artifact.runtimes.base import Runtime, load_runtime, run_batches
from core.preprocess import Pixels


def parity_batches(batch_range: tuple[int, int]) -> tuple[int, ...]:
    """Returns the batch sizes to check: 1, 2, 8 and the largest, those within ``batch_range``."""
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
    """Compares ``runtime`` with ``expected``, and its results at different batch sizes.

    Args:
        runtime: the runtime to check.
        artifact: the artifact it runs; loaded once more to reproduce the golden batch.
        pixels: uint8 (n, H, W, 3) of real images: all are run at the largest batch size, a quarter
            of them at each other one.
        expected: float32 (n, C), their reference logits.
        reference: origin of ``expected``.
        golden: the golden batch: uint8 (m, H, W, 3) and its logits, float32 (m, C).
    """
    batches = parity_batches(artifact.batch_range)
    largest, images = batches[-1], len(pixels)
    count = -(-max(images, largest) // largest) * largest  # whole batches: images are repeated
    filled = np.take(pixels, np.arange(count), axis=0, mode="wrap")
    logits = run_batches(runtime, filled, largest)[:images]
    others = [run_batches(runtime, filled[: max(images // 4, b)], b) for b in batches[:-1]]
    shared = [(other[:images], logits[: len(other)]) for other in others]
    with load_runtime(runtime.name, artifact) as again:
        reproduced = run_batches(again, golden[0], largest)
    return Parity(
        runtime=runtime.name,
        reference=reference,
        images=images,
        batches=batches,
        finite=all(bool(np.isfinite(each).all()) for each in (logits, *others)),
        top1_agreement=agreement(*map(answering_of(artifact).sets, (logits, expected))),
        relative_error=relative_error(logits, expected),
        batch_error=max((relative_error(*pair) for pair in shared), default=0.0),
        golden_error=relative_error(reproduced, golden[1]),
    )
