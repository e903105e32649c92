"""Whether a runtime still answers what the artifact answered when it was made. No torch here."""

from __future__ import annotations

import numpy as np

from export.artifact import Artifact, Logits, Precision
from export.runtimes.base import Runtime
from models.errors import UserError

# Largest relative error of logits: processors and versions round differently, and int8 more so.
LIMITS: dict[Precision, float] = {"fp32": 1e-3, "fp16": 5e-2, "int8": 1e-1}


class GoldenError(UserError):
    """A runtime that does not reproduce the golden batch; the message says by how much."""


def check_golden(runtime: Runtime, artifact: Artifact) -> None:
    """Returns None if ``runtime`` reproduces the golden batch of ``artifact``.

    Raises:
        GoldenError: logits that are not finite, or too far off.
    """
    pixels, golden = artifact.golden()
    largest = artifact.batch_range[1]
    logits = np.concatenate(
        [runtime(pixels[start : start + largest]) for start in range(0, len(pixels), largest)]
    )
    limit = LIMITS[artifact.precision]
    if not np.isfinite(logits).all():
        raise _error(runtime, artifact, "logits that are not finite")
    if (error := relative_error(logits, golden)) > limit:
        raise _error(runtime, artifact, f"a relative error of {error:.2g}, over {limit:g}")


def relative_error(logits: Logits, reference: Logits) -> float:
    """Returns the largest absolute difference over the largest absolute logit of ``reference``.

    Where all of ``reference`` is 0, the absolute difference.
    """
    scale = float(np.abs(reference).max()) or 1.0
    return float(np.abs(logits - reference).max()) / scale


def _error(runtime: Runtime, artifact: Artifact, what: str) -> GoldenError:
    return GoldenError(
        f"{artifact.path}: {runtime.name} does not reproduce the golden batch ({what}); "
        "export it again on this machine, or use another runtime"
    )
