"""The golden batch: pixels with logits that every runtime must reproduce."""

from __future__ import annotations

import numpy as np

from artifact.artifact import Artifact
from artifact.records import Logits
from artifact.runtimes.base import Runtime, run_batches
from core.errors import UserError, first_line
from core.preprocess import Pixels


class GoldenError(UserError):
    """A runtime fails to reproduce the golden batch; the message says by how much."""


def check_golden(runtime: Runtime, artifact: Artifact) -> None:
    """Checks that ``runtime`` reproduces the golden batch of ``artifact``.

    Raises:
        GoldenError: it fails, or its logits have another shape, are not finite, or differ too much.
    """
    pixels, golden = artifact.golden()
    try:
        logits = run_batches(runtime, pixels, artifact.batch_range[1])
    except UserError:
        raise
    except Exception as error:  # the exceptions of runtimes share no public base class
        raise _error(runtime, artifact, first_line(error)) from error
    limit = artifact.limits.golden_error
    if (logits.dtype, logits.shape) != (golden.dtype, golden.shape):
        raise _error(runtime, artifact, f"{logits.dtype} {list(logits.shape)} comes out")
    if not np.isfinite(logits).all():
        raise _error(runtime, artifact, "logits that are not finite")
    if (far := relative_error(logits, golden)) > limit:
        raise _error(runtime, artifact, f"a relative error of {far:.2g}, over {limit:g}")


def golden_pixels(artifact: Artifact, batch: int) -> Pixels:
    """Returns the golden pixels of ``artifact`` as uint8 (batch, H, W, 3), repeated as needed."""
    pixels, _ = artifact.golden()
    return pixels[np.arange(batch) % len(pixels)]


def relative_error(logits: Logits, reference: Logits) -> float:
    """Returns the largest absolute difference divided by the largest absolute reference logit.

    If ``reference`` is all zeros, it is not divided.
    """
    scale = float(np.abs(reference).max()) or 1.0
    return float(np.abs(logits - reference).max()) / scale


def _error(runtime: Runtime, artifact: Artifact, what: str) -> GoldenError:
    return GoldenError(
        f"{artifact.path}: {runtime.name} does not reproduce the golden batch ({what}); "
        "export it again on this machine, or use another runtime"
    )
