"""Agreement of an artifact with the torch network it came from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from export.artifact import Logits, Parity, Precision
from export.golden import relative_error
from export.runtimes.base import Runtime
from models.errors import UserError
from models.preprocess import Pixels


class ParityError(UserError):
    """An artifact that must not appear; the message names the figure and the limit it missed."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What an artifact must reach: least top-1 agreement, largest relative error of a logit."""

    top1_agreement: float
    relative_error: float


# int8 moves logits by a quarter without changing an answer, so agreement is what counts there and
# the error limit only catches a graph that broke.
LIMITS: dict[Precision, Limits] = {
    "fp32": Limits(1.0, 1e-3),
    "fp16": Limits(0.99, 5e-2),
    "int8": Limits(0.95, 0.5),
}


def parity_batches(batch_range: tuple[int, int]) -> tuple[int, ...]:
    """Returns the batch sizes to check: 1, 2, 8 and the largest, as far as they are allowed."""
    smallest, largest = batch_range
    return tuple(sorted({b for b in (1, 2, 8, largest) if smallest <= b <= largest}))


def measure_parity(
    runtime: Runtime, pixels: Pixels, reference: Logits, batches: tuple[int, ...]
) -> Parity:
    """Returns how ``runtime`` agrees with torch, the worst of all batch sizes.

    Args:
        runtime: what is being checked.
        pixels: uint8 (n, H, W, 3) of real images; a last batch may be smaller.
        reference: float32 (n, C), torch's logits of them.
        batches: batch sizes to run all images at.

    Raises:
        ParityError: logits that are not finite.
    """
    agreements, errors = [], []
    for batch in batches:
        starts = range(0, len(pixels), batch)
        logits = np.concatenate([runtime(pixels[start : start + batch]) for start in starts])
        if not np.isfinite(logits).all():
            raise ParityError(f"logits are not finite at batch {batch} on {runtime.name}")
        agreements.append(float(np.mean(logits.argmax(axis=1) == reference.argmax(axis=1))))
        errors.append(relative_error(logits, reference))
    return Parity(
        runtime=runtime.name,
        images=len(pixels),
        batches=batches,
        top1_agreement=min(agreements),
        relative_error=max(errors),
    )


def check_parity(parity: Parity, precision: Precision) -> None:
    """Raises ParityError if a figure misses the limit of its precision."""
    limits = LIMITS[precision]
    if parity.top1_agreement < limits.top1_agreement:
        raise ParityError(
            f"top-1 agreement with torch is {parity.top1_agreement:.1%} on {parity.images} images, "
            f"the limit for {precision} is {limits.top1_agreement:.1%}"
        )
    if parity.relative_error > limits.relative_error:
        raise ParityError(
            f"largest relative error against torch is {parity.relative_error:.2g}, "
            f"the limit for {precision} is {limits.relative_error:g}"
        )
