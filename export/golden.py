"""Whether a runtime still answers what the artifact answered when it was made. No torch here."""

from __future__ import annotations

import numpy as np

from export.artifact import Artifact, Precision
from export.runtimes.base import Runtime
from models.errors import UserError

# Largest relative error of logits: processors and versions round differently, and int8 more so.
LIMITS: dict[Precision, float] = {"fp32": 1e-3, "fp16": 5e-2, "int8": 1e-1}


class GoldenError(UserError):
    """A runtime that does not reproduce the golden batch; the message says by how much."""


def check_golden(runtime: Runtime, artifact: Artifact) -> None:
    """Returns None if ``runtime`` reproduces the golden batch of ``artifact``.

    The relative error is the largest absolute difference over the largest absolute golden logit.
    The top-1 class must be equal wherever the golden one leads by more than twice what the error
    limit allows: below that a change of class is within the limit.

    Raises:
        GoldenError: logits that are not finite, too far off, or of another class.
    """
    pixels, golden = artifact.golden()
    largest = artifact.batch_range[1]
    logits = np.concatenate(
        [runtime(pixels[start : start + largest]) for start in range(0, len(pixels), largest)]
    )
    limit = LIMITS[artifact.precision]
    if not np.isfinite(logits).all():
        raise _error(runtime, artifact, "logits that are not finite")
    scale = float(np.abs(golden).max()) or 1.0  # all-zero logits: the absolute error then
    error = float(np.abs(logits - golden).max()) / scale
    if error > limit:
        raise _error(runtime, artifact, f"a relative error of {error:.2g}, over {limit:g}")
    leads = np.sort(golden, axis=1)
    margin = leads[:, -1] - leads[:, -2] if golden.shape[1] > 1 else np.zeros(len(golden))
    changed = (logits.argmax(axis=1) != golden.argmax(axis=1)) & (margin > 2 * limit * scale)
    if changed.any():
        raise _error(
            runtime, artifact, f"another top-1 class on {changed.sum()} of {len(golden)} images"
        )


def _error(runtime: Runtime, artifact: Artifact, what: str) -> GoldenError:
    return GoldenError(
        f"{artifact.path}: {runtime.name} does not reproduce the golden batch ({what}); "
        "export it again on this machine, or use another runtime"
    )
