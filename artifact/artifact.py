"""The artifact: a deployable folder, described by its manifest.

artifacts/mobilenet_v3_large-digits/onnx-int8/
    manifest.json       everything below, and digests of the other files and of itself
    model.onnx          the model, or the graph that the model files were made from
    model.engine        model files of another format, by the names in its FormatSpec
    golden_pixels.npy   uint8 (n, H, W, 3)
    golden_logits.npy   float32 (n, num_classes): the model file's output when it was made
    README.md           the model card; not in the manifest, so that it may be completed by hand
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from artifact.formats import FORMATS, GRAPH, FormatSpec
from artifact.manifest import Manifest
from artifact.records import Logits
from artifact.validation import (
    ArtifactError,
    check_files,
    check_golden_files,
    check_manifest,
    read_array,
    read_fields,
)
from core.errors import first_line
from core.files import sha256, write_whole
from core.preprocess import Pixels

ARTIFACTS = Path("artifacts")  # <model>-<data>/<format>-<precision>/

SCHEMA = 2
MANIFEST = "manifest.json"
CARD = "README.md"  # for people and model hubs; nothing reads it
GOLDEN_PIXELS = "golden_pixels.npy"
GOLDEN_LOGITS = "golden_logits.npy"


@with_config(ConfigDict(extra="forbid", allow_inf_nan=False))
@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact(Manifest):
    """A network that is ready to run elsewhere, and everything needed to use it.

    Attributes:
        path: the folder. All other attributes are those of the manifest.
    """

    path: Path

    @property
    def model_file(self) -> Path:
        """Returns the path of the file that a runtime loads."""
        return self.path / self.spec.model_file

    @property
    def graph_file(self) -> Path:
        """Returns the path of the ONNX graph: the model file itself, or its source."""
        return self.path / GRAPH

    @property
    def size(self) -> int:
        """Returns the size of the model files in bytes.

        Raises:
            ArtifactError: they cannot be read, or are gone.
        """
        with readable(self.path):
            return sum((self.path / name).stat().st_size for name in self.spec.files)

    def golden(self) -> tuple[Pixels, Logits]:
        """Returns the golden batch: pixels uint8 (n, H, W, 3) and their logits float32 (n, C).

        Raises:
            ArtifactError: the files do not hold such arrays, cannot be read, or are gone.
        """
        with readable(self.path):
            pixels = read_array(self.path, GOLDEN_PIXELS, "uint8", self.preprocess.shape)
            logits = read_array(self.path, GOLDEN_LOGITS, "float32", (len(self.labels),))
        return pixels, logits

    @classmethod
    def load(cls, path: Path) -> Artifact:
        """Loads the artifact in folder ``path`` and checks all of its files.

        Digests detect damaged or mixed-up files. They do not protect against an attacker who can
        write to the folder.

        Raises:
            ArtifactError: no artifact, an unknown schema, a missing or changed file, a manifest
                that contradicts itself or the golden batch, or a gate that does not hold.
        """
        with readable(path):
            artifact = _read_manifest(path)
            check_files(path, artifact, files_of(artifact.spec))
            check_manifest(path, artifact)
            check_golden_files(path, *artifact.golden())
        return artifact


_ADAPTER = TypeAdapter(Artifact)


def read_manifest(path: Path) -> Artifact:
    """Returns the artifact in folder ``path``, of which only the manifest is read and checked.

    Raises:
        ArtifactError: no artifact, or a manifest that cannot be understood.
    """
    with readable(path):
        return _read_manifest(path)


def format_of(path: Path) -> FormatSpec:
    """Returns the format of the artifact in folder ``path``, reading only its manifest.

    Raises:
        ArtifactError: as :func:`read_manifest`.
    """
    return read_manifest(path).spec


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """A context manager: what the system says of the files in folder ``path`` is one clear line.

    The folder may be moved or deleted at any time, while it is read, too.

    Raises:
        ArtifactError: a file is gone, or may not be read, or its disk is broken.
    """
    try:
        yield
    except OSError as error:
        why = error.strerror or first_line(error)
        if isinstance(error.filename, str):
            why += f": {Path(error.filename).name}"
        remedy = ""
        if isinstance(error, FileNotFoundError):
            remedy = "; leave the folder where it is until it is loaded"
        raise ArtifactError(f"{path}: cannot be read ({why}){remedy}") from error


def files_of(spec: FormatSpec) -> frozenset[str]:
    """Returns the names of all files of an artifact except its manifest."""
    return spec.all_files | {GOLDEN_PIXELS, GOLDEN_LOGITS}


def write_artifact(artifact: Artifact, pixels: Pixels, logits: Logits) -> Artifact:
    """Completes the artifact in ``artifact.path`` and returns it as loaded from there.

    The model files are there already; this adds the golden batch, and the manifest with the
    digests of all files. Call it inside :func:`core.files.staged`, so that the folder appears
    atomically.
    """
    np.save(artifact.path / GOLDEN_PIXELS, np.ascontiguousarray(pixels))
    np.save(artifact.path / GOLDEN_LOGITS, np.ascontiguousarray(logits))
    names = sorted(files_of(artifact.spec))
    digests = {name: sha256(artifact.path / name) for name in names}
    return write_manifest(dataclasses.replace(artifact, sha256s=digests))


def write_manifest(artifact: Artifact) -> Artifact:
    """Writes the manifest of ``artifact``, and returns it as loaded from its folder."""
    fields = {"schema": SCHEMA, **manifest_of(artifact)}
    text = json.dumps({**fields, "digest": digest_of(fields)}, indent=1, ensure_ascii=False)
    write_whole(artifact.path / MANIFEST, f"{text}\n".encode())
    return Artifact.load(artifact.path)


def manifest_of(artifact: Artifact) -> dict[str, Any]:
    """Returns the fields of ``artifact`` except its path, ready for JSON."""
    fields: dict[str, Any] = _ADAPTER.dump_python(artifact, mode="json")
    del fields["path"]
    return fields


def digest_of(fields: dict[str, Any]) -> str:
    """Returns the SHA-256 digest, in hex, of a manifest's fields without ``digest`` itself."""
    text = json.dumps(fields, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _read_manifest(path: Path) -> Artifact:
    manifest = path / MANIFEST
    if not manifest.exists():
        inside = sorted(each.parent.name for each in path.glob(f"*/{MANIFEST}"))
        remedy = "make one with: python -m export run --model mobilenet_v3 --data digits"
        if inside:
            remedy = f"name one of those in it: {', '.join(inside)}"
        raise ArtifactError(f"{path}: not an artifact, it holds no {MANIFEST}; {remedy}")
    fields = read_fields(path, MANIFEST)
    schema = fields.pop("schema", None)
    if schema != SCHEMA:
        raise ArtifactError(
            f"{manifest}: schema is {schema!r}, this version reads {SCHEMA}; export it again"
        )
    digest = fields.pop("digest", None)
    if digest != digest_of({"schema": schema, **fields}):
        raise ArtifactError(
            f"{manifest}: it was changed after it was written (its digest differs); "
            "copy the folder again or export it again"
        )
    try:
        # Validated as JSON, in strict mode: otherwise the text "7" would be accepted as a number.
        artifact = _ADAPTER.validate_json(json.dumps({**fields, "path": "."}), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ArtifactError(f"{manifest}: {where}: {first['msg']}; export it again") from None
    if artifact.format not in FORMATS:
        known = ", ".join(FORMATS)
        raise ArtifactError(
            f"{manifest}: format is {artifact.format!r}, known are {known}; export it again"
        )
    return dataclasses.replace(artifact, path=path)
