"""Validation of artifacts: the security boundary between an untrusted folder and a runtime.

The files are untrusted. They are read without executing anything, sizes are checked before
contents, and contents are checked against the manifest, which must be consistent.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from artifact.formats import FORMATS, GRAPH
from artifact.manifest import Manifest
from artifact.profile import SCORE
from artifact.records import Logits, Profile
from core.errors import UserError, first_line
from core.files import contains, sha256
from core.image_size import sides, size_text
from core.image_statistics import STATISTICS
from core.preprocess import Pixels

MAX_BATCH = 4096  # runtimes allocate buffers for the largest batch
MAX_SIDE = 4096  # px: each served image needs height * width * channels bytes, several times
MAX_LEVELS = 8  # nesting depth of JSON; a manifest has four
_MAX_BYTES = {  # size limits of the other files
    "manifest.json": 16 << 20,
    "golden_pixels.npy": 512 << 20,
    "golden_logits.npy": 64 << 20,
}
# A tensor stored in another file has an entry with this key. Protobuf stores a string's bytes
# contiguously, so a graph without these bytes refers to no other file.
EXTERNAL = b"location"


class ArtifactError(UserError):
    """A folder that cannot be trusted as an artifact; the message names what is wrong."""

    def __init__(self, message: str) -> None:
        # It quotes the manifest, which may contain line breaks and terminal escape sequences.
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in message))


def max_bytes(name: str) -> int:
    """Returns the size limit in bytes of file ``name`` of an artifact."""
    if name in _MAX_BYTES:
        return _MAX_BYTES[name]
    return max(spec.max_bytes for spec in FORMATS.values() if name in spec.files)


def regular_file(folder: Path, name: str) -> Path:
    """Returns the path of file ``name`` in ``folder``, after checking that it is safe to read.

    Raises:
        ArtifactError: missing, too large, a link that leads out of ``folder``, or not a regular
            file: opening a pipe may block for ever, and a device is endless.
    """
    file = folder / name
    try:
        status = file.stat()
    except FileNotFoundError:
        what = f"{file}: missing; copy the whole folder or export it again"
        raise ArtifactError(what) from None
    # Links inside the folder are allowed: Kubernetes mounts volumes that way.
    if not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder)):
        raise ArtifactError(f"{file}: a link that leads out of the folder; copy the file itself")
    if not stat.S_ISREG(status.st_mode):
        raise ArtifactError(f"{file}: not a file; copy the folder again or export it again")
    limit = max_bytes(name)
    if status.st_size > limit:
        raise ArtifactError(
            f"{file}: {status.st_size} bytes, the limit is {limit}; export it again"
        )
    return file


def read_fields(folder: Path, name: str) -> dict[str, Any]:
    """Returns the JSON object in file ``name`` of ``folder``.

    Parsing is strict, so that no two readers can see different manifests.

    Raises:
        ArtifactError: no such file, or not UTF-8, a byte-order mark, a key twice, NaN, an
            integer of thousands of digits, nesting too deep, no object.
    """
    file = regular_file(folder, name)
    try:
        fields = json.loads(
            file.read_bytes().decode(), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
        if not isinstance(fields, dict):
            raise ValueError("no object")
        if not _nests_at_most(MAX_LEVELS, fields):
            raise ValueError(f"nested deeper than {MAX_LEVELS} levels")
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{file}: not JSON ({first_line(error)}); export it again") from None
    return fields


def read_array(folder: Path, name: str, kind: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Returns the array (n, *shape) in the ``.npy`` file ``name`` of ``folder``; n is at least 1.

    The header is checked against the file's size before anything is allocated.

    Args:
        folder: folder of an artifact.
        name: name of the file in it.
        kind: NumPy dtype that the array must have; object arrays, which are pickled, are refused.
        shape: shape of one element.

    Raises:
        ArtifactError: no such file, or not a C-contiguous array of that dtype and shape.
    """
    file, dtype = regular_file(folder, name), np.dtype(kind)
    with file.open("rb") as stream:
        try:
            if (version := np.lib.format.read_magic(stream)) != (1, 0):
                raise ValueError(f"version {version}")
            found, fortran, found_dtype = np.lib.format.read_array_header_1_0(stream)
        except Exception as error:  # NumPy raises many types of exception on corrupt data
            why = first_line(error)
            raise ArtifactError(f"{file}: not a .npy file ({why}); export it again") from None
        if (found_dtype, fortran, found[1:]) != (dtype, False, shape):
            raise ArtifactError(
                f"{file}: {found_dtype} {list(found)}, but the manifest wants {dtype} "
                f"{['n', *shape]} in C order; export it again"
            )
        count = found[0] * math.prod(shape)
        left = os.fstat(stream.fileno()).st_size - stream.tell()
        if found[0] < 1 or count * dtype.itemsize != left:
            raise ArtifactError(
                f"{file}: {left} bytes follow a header that says {list(found)}; export it again"
            )
        return np.fromfile(stream, dtype, count).reshape(found)


def check_files(path: Path, artifact: Manifest, expected: Collection[str]) -> None:
    """Raises ArtifactError unless exactly the ``expected`` files are listed and unchanged."""
    if set(artifact.sha256s) != set(expected):
        raise ArtifactError(
            f"{path}: the manifest lists {sorted(artifact.sha256s)}, "
            f"an artifact holds {sorted(expected)}; export it again"
        )
    files = {name: regular_file(path, name) for name in sorted(expected)}
    for name, file in files.items():
        if sha256(file) != artifact.sha256s[name]:
            raise ArtifactError(
                f"{file}: its bytes are not those of the manifest (sha256 differs); "
                "copy the folder again or export it again"
            )
    if contains(graph := files[GRAPH], EXTERNAL):
        raise ArtifactError(
            f"{graph}: it holds the word {EXTERNAL.decode()!r}, by which a graph refers to other "
            "files, and none may; name no layer so, and export it again"
        )


def check_manifest(path: Path, artifact: Manifest) -> None:
    """Raises ArtifactError if the fields of a manifest contradict each other."""
    _check_ends(path, artifact)
    if artifact.precision not in artifact.spec.schemes:
        known = ", ".join(artifact.spec.schemes)
        what = f"precision is {artifact.precision}, but {artifact.format} is made in {known}"
        raise _error(path, what)
    if (artifact.parity is None) != (artifact.unverified is not None):
        raise _error(
            path,
            "the manifest must hold either its parity with torch or the reason why it is "
            "unverified",
        )
    for gate in artifact.gates:
        if not gate.holds:
            raise _error(path, str(gate))
    if (made := artifact.quantization) is not None:
        if artifact.precision != "int8":
            what = f"the manifest says how an {artifact.precision} graph came to int8"
            raise _error(path, what)
        if made.calibration not in made.top1:
            what = f"calibration is {made.calibration}, but top1 holds {sorted(made.top1)}"
            raise _error(path, what)
    wanted = len(artifact.labels) if artifact.task == "multi" else 0
    if len(artifact.thresholds) != wanted:
        what = f"task is {artifact.task}, so it needs {wanted} thresholds"
        raise _error(path, f"{what}, and has {len(artifact.thresholds)}")
    if artifact.abstention and artifact.task == "multi":
        raise _error(path, "task is multi, and only a single label can be too unsure")
    if artifact.profile is not None:
        _check_profile(path, artifact.profile, len(artifact.labels))
    if (artifact.fingerprint is not None) != artifact.spec.machine_bound:
        raise _error(path, "an engine, and only an engine, has a fingerprint")
    if (print_ := artifact.fingerprint) and print_.onnx_sha256 != artifact.sha256s[GRAPH]:
        raise _error(path, "the engine was built from another graph than the one beside it")
    for profile in print_.profiles if print_ else ():
        if list(profile) != sorted(profile) or profile[2] > MAX_BATCH:
            what = f"a profile is {list(profile)}, it must be 1 <= a <= b <= c <= {MAX_BATCH}"
            raise _error(path, what)


def _check_profile(path: Path, profile: Profile, labels: int) -> None:
    if set(profile.quantiles) != {SCORE, *STATISTICS}:
        what = f"its profile is of {sorted(profile.quantiles)}"
        raise _error(path, f"{what}, it must be of {sorted((SCORE, *STATISTICS))}")
    if len(profile.classes) != labels or sum(profile.classes) != profile.images:
        what = f"its profile has {len(profile.classes)} classes of {sum(profile.classes)} images"
        raise _error(path, f"{what}, it must be {labels} of {profile.images}")
    for feature, points in profile.quantiles.items():
        if list(points) != sorted(points):
            raise _error(path, f"the quantiles of {feature} in its profile do not rise")


def _check_ends(path: Path, artifact: Manifest) -> None:
    preprocess, classes = artifact.preprocess, len(artifact.labels)
    crop, resize = size_text(preprocess.crop), size_text(preprocess.resize)
    if max(sides(preprocess.resize)) > 2 * MAX_SIDE or max(preprocess.size) > MAX_SIDE:
        raise _error(
            path,
            f"crop is {crop} and resize is {resize}, "
            f"they must be at most {MAX_SIDE} and {2 * MAX_SIDE}",
        )
    ends = (
        (artifact.input, "uint8", ("batch", *preprocess.shape)),
        (artifact.output, "float32", ("batch", classes)),
    )
    for end, dtype, shape in ends:
        if (end.dtype, end.shape) != (dtype, shape):
            raise _error(
                path,
                f"{end.name} is {end.dtype} {list(end.shape)}, but {classes} labels and a crop of "
                f"{crop} want {dtype} {list(shape)}",
            )
    smallest, largest = artifact.batch_range
    if not 1 <= smallest <= largest <= MAX_BATCH:
        what = f"batch_range is {[smallest, largest]}, it must be 1 <= a <= b <= {MAX_BATCH}"
        raise _error(path, what)


def check_golden_files(path: Path, pixels: Pixels, logits: Logits) -> None:
    """Raises ArtifactError unless the golden batch has finite logits for each of its images."""
    if len(pixels) != len(logits):
        what = f"the golden batch holds {len(pixels)} images and logits of {len(logits)}"
        raise _error(path, what)
    if not np.isfinite(logits).all():
        raise _error(path, "the logits of the golden batch are not all finite")


def _error(path: Path, what: str) -> ArtifactError:
    return ArtifactError(f"{path}: {what}; export it again")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a key stands twice in one object")
    return fields


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _nests_at_most(levels: int, value: Any) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels >= 0 and all(_nests_at_most(levels - 1, each) for each in inner)
