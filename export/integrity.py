"""Whether an artifact's files are those of its manifest, and whether the manifest holds together.

No torch here: a server imports this file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from models.errors import UserError
from models.files import sha256

if TYPE_CHECKING:
    from export.artifact import Artifact

MAX_BATCH = 4096  # a runtime keeps buffers for its largest batch


class ArtifactError(UserError):
    """A folder that cannot be trusted as an artifact; the message names what is wrong."""


def check_files(artifact: Artifact, expected: set[str]) -> None:
    """Raises ArtifactError unless exactly ``expected`` files are listed, there, and unchanged."""
    if set(artifact.sha256s) != expected:
        raise ArtifactError(
            f"{artifact.path}: the manifest lists {sorted(artifact.sha256s)}, "
            f"an artifact holds {sorted(expected)}; export it again"
        )
    for name, digest in artifact.sha256s.items():
        file = artifact.path / name
        if not file.is_file():
            raise ArtifactError(f"{file}: missing; copy the whole folder or export it again")
        if sha256(file) != digest:
            raise ArtifactError(
                f"{file}: its bytes are not those of the manifest (sha256 differs); "
                "copy the folder again or export it again"
            )


def check_contents(artifact: Artifact) -> None:
    """Raises ArtifactError if two statements of ``artifact`` contradict each other."""
    _check_ends(artifact)
    if (artifact.parity is None) != (artifact.unverified is not None):
        raise _error(
            artifact,
            "the manifest must hold either its parity with torch or the reason why it is "
            "unverified",
        )
    for gate in artifact.gates:
        if not gate.holds:
            raise _error(artifact, str(gate))
    if (made := artifact.quantization) is not None:
        if artifact.precision != "int8":
            what = f"the manifest says how an {artifact.precision} graph came to int8"
            raise _error(artifact, what)
        if made.calibration not in made.top1:
            what = f"calibration is {made.calibration}, but top1 holds {sorted(made.top1)}"
            raise _error(artifact, what)
    if (artifact.fingerprint is None) != (artifact.format == "onnx"):
        raise _error(artifact, "an engine, and only an engine, has a fingerprint")
    if (print_ := artifact.fingerprint) and print_.onnx_sha256 != artifact.sha256s["model.onnx"]:
        raise _error(artifact, "the engine was built from another graph than the one beside it")
    _check_golden(artifact)


def _check_ends(artifact: Artifact) -> None:
    side, classes = artifact.preprocess.crop, len(artifact.labels)
    ends = (
        (artifact.input, "uint8", ("batch", side, side, 3)),
        (artifact.output, "float32", ("batch", classes)),
    )
    for end, dtype, shape in ends:
        if (end.dtype, end.shape) != (dtype, shape):
            raise _error(
                artifact,
                f"{end.name} is {end.dtype} {list(end.shape)}, but {classes} labels and a crop of "
                f"{side} want {dtype} {list(shape)}",
            )
    smallest, largest = artifact.batch_range
    if not 1 <= smallest <= largest <= MAX_BATCH:
        what = f"batch_range is {[smallest, largest]}, it must be 1 <= a <= b <= {MAX_BATCH}"
        raise _error(artifact, what)


def _check_golden(artifact: Artifact) -> None:
    side, classes = artifact.preprocess.crop, len(artifact.labels)
    pixels, logits = artifact.golden()
    if pixels.shape[1:] != (side, side, 3) or logits.shape != (len(pixels), classes):
        raise _error(
            artifact,
            f"the golden batch maps {pixels.shape} to {logits.shape}, "
            f"not (n, {side}, {side}, 3) to (n, {classes})",
        )


def _error(artifact: Artifact, what: str) -> ArtifactError:
    return ArtifactError(f"{artifact.path}: {what}; export it again")
