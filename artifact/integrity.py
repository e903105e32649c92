"""Whether an artifact's files are those of its manifest, and whether the manifest holds together.

No torch here: a server imports this file.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from core.errors import UserError
from core.files import contains, sha256

if TYPE_CHECKING:
    from artifact.artifact import Artifact

MAX_BATCH = 4096  # a runtime keeps buffers for its largest batch
MAX_SIDE = 4096  # px: each image that is served takes side * side * 3 bytes, several times
MAX_BYTES = {
    "manifest.json": 16 << 20,
    "golden_pixels.npy": 512 << 20,
    "golden_logits.npy": 64 << 20,
    "model.onnx": 2 << 30,  # what protobuf can hold
    "model.engine": 4 << 30,
}
# A tensor that lies in another file is marked by an entry with this key. Protobuf keeps the bytes
# of a string together, so a graph without them refers to no other file.
EXTERNAL = b"location"


class ArtifactError(UserError):
    """A folder that cannot be trusted as an artifact; the message names what is wrong."""

    def __init__(self, message: str) -> None:
        # It quotes the manifest, which may hold line breaks and what a terminal obeys.
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in message))


def regular_file(folder: Path, name: str) -> Path:
    """Returns the path of file ``name`` of an artifact, which can be opened and read to its end.

    Raises:
        ArtifactError: missing, too large, a link that leads out of ``folder``, or no file:
            opening a pipe waits for ever, and a device has no end.
    """
    file = folder / name
    try:
        status = file.stat()
    except FileNotFoundError:
        what = f"{file}: missing; copy the whole folder or export it again"
        raise ArtifactError(what) from None
    # Links inside the folder are how Kubernetes mounts a volume of files.
    if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder)):
        raise ArtifactError(f"{file}: a link that leads out of the folder; copy the file itself")
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactError(f"{file}: not a file; copy the folder again or export it again")
    if status.st_size > MAX_BYTES[name]:
        raise ArtifactError(
            f"{file}: {status.st_size} bytes, the limit is {MAX_BYTES[name]}; export it again"
        )
    return file


def check_files(artifact: Artifact, expected: set[str]) -> None:
    """Raises ArtifactError unless exactly ``expected`` files are listed, there, and unchanged."""
    if set(artifact.sha256s) != expected:
        raise ArtifactError(
            f"{artifact.path}: the manifest lists {sorted(artifact.sha256s)}, "
            f"an artifact holds {sorted(expected)}; export it again"
        )
    files = {name: regular_file(artifact.path, name) for name in sorted(expected)}
    for name, file in files.items():
        if sha256(file) != artifact.sha256s[name]:
            raise ArtifactError(
                f"{file}: its bytes are not those of the manifest (sha256 differs); "
                "copy the folder again or export it again"
            )
    if contains(graph := files["model.onnx"], EXTERNAL):
        raise ArtifactError(
            f"{graph}: it holds the word {EXTERNAL.decode()!r}, by which a graph refers to other "
            "files, and none may; name no layer so, and export it again"
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
    for profile in print_.profiles if print_ else ():
        if list(profile) != sorted(profile) or profile[2] > MAX_BATCH:
            what = f"a profile is {list(profile)}, it must be 1 <= a <= b <= c <= {MAX_BATCH}"
            raise _error(artifact, what)
    _check_golden(artifact)


def _check_ends(artifact: Artifact) -> None:
    side, classes = artifact.preprocess.crop, len(artifact.labels)
    if artifact.preprocess.resize > 2 * MAX_SIDE or side > MAX_SIDE:
        raise _error(
            artifact,
            f"crop is {side} and resize is {artifact.preprocess.resize}, "
            f"they must be at most {MAX_SIDE} and {2 * MAX_SIDE}",
        )
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
    pixels, logits = artifact.golden()
    if len(pixels) != len(logits):
        what = f"the golden batch holds {len(pixels)} images and logits of {len(logits)}"
        raise _error(artifact, what)
    if not np.isfinite(logits).all():
        raise _error(artifact, "the logits of the golden batch are not all finite")


def _error(artifact: Artifact, what: str) -> ArtifactError:
    return ArtifactError(f"{artifact.path}: {what}; export it again")
