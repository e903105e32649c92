"""Core ML, on macOS: what runs an .mlpackage on an iPhone or a Mac."""

from __future__ import annotations

import importlib
import json
import logging
import sys
from pathlib import Path
from typing import Any

import numpy as np

from artifact.artifact import Artifact
from artifact.formats import CORE_ML_PACKAGE, FORMATS
from artifact.records import Logits
from artifact.runtimes.base import Runtime, RuntimeUnavailable, check_pixels, require_import
from core.errors import first_line
from core.preprocess import Pixels, image_of

_MAC = sys.platform == "darwin"


class CoremlRuntime(Runtime):
    """An .mlpackage, on the units that Core ML chooses: CPU, GPU or Neural Engine.

    Its input is one image: those of a batch are given together, and Core ML runs them as it likes.
    """

    name = "coreml"
    parallel = False  # coremltools does not say that a model may be called from several threads

    def __init__(self, artifact: Artifact) -> None:
        self._artifact = artifact
        package = str(artifact.path / CORE_ML_PACKAGE)
        self._model: Any = import_coremltools().models.MLModel(package)

    def __call__(self, pixels: Pixels) -> Logits:
        """Returns float32 logits (N, classes) of uint8 pixels (N, H, W, channels)."""
        assert self._model is not None, "called after the runtime was closed"
        check_pixels(pixels, self._artifact)
        given, result = self._artifact.input.name, self._artifact.output.name
        answers = self._model.predict([{given: image_of(each)} for each in pixels])
        return np.concatenate([answer[result] for answer in answers]).astype(np.float32)

    def close(self) -> None:
        """Frees what the runtime holds; no call may follow."""
        self._model = None


def import_coremltools(name: str = "coreml") -> Any:
    """Returns coremltools, without its notes on versions of libraries that are not used here.

    Args:
        name: of the runtime, or of the format, which is called the same.

    Raises:
        RuntimeUnavailable: it cannot be imported; the message says how to install it.
    """
    logging.getLogger("coremltools").setLevel(logging.ERROR)
    require_import(name, "coremltools")
    return importlib.import_module("coremltools")


def require(name: str) -> None:
    """Raises RuntimeUnavailable unless this is a Mac with coremltools."""
    if not _MAC:
        raise RuntimeUnavailable(f"{name}: needs a Mac; verify it there")
    import_coremltools(name)


def load(artifact: Artifact, *, threads: int | None = None) -> CoremlRuntime:
    """Returns ``artifact`` in Core ML.

    Args:
        artifact: what to run.
        threads: not used, as Core ML chooses them and its units by itself.

    Raises:
        RuntimeUnavailable: this is no Mac, coremltools is not installed, or Core ML cannot run the
            package, or that refers to other files, or gives something else than the manifest says.
    """
    require("coreml")
    package = artifact.path / CORE_ML_PACKAGE
    try:
        _check_alone(package)
        runtime = CoremlRuntime(artifact)
        logits = runtime(np.zeros((1, *artifact.preprocess.shape), np.uint8))
        if logits.shape[1:] != artifact.output.shape[1:]:
            raise ValueError(f"it gives {list(logits.shape)}, not {list(artifact.output.shape)}")
    except Exception as error:  # coremltools raises many types, up to Exception itself
        raise RuntimeUnavailable(
            f"coreml: cannot run {package} ({first_line(error)}); export it again"
        ) from error
    return runtime


def _check_alone(package: Path) -> None:
    """Raises ValueError if a package refers to files of which the manifest knows nothing."""
    from coremltools.proto.Model_pb2 import Model

    model, weights, _ = (f.removeprefix(f"{package.name}/") for f in FORMATS["coreml"].files)
    root = Path(model).parent
    listed = json.loads((package / "Manifest.json").read_bytes())["itemInfoEntries"]
    found = {f"Data/{item['path']}" for item in listed.values()}
    wanted = {model, str(Path(weights).parent)}
    spec = Model.FromString((package / model).read_bytes())
    found |= {f"{root}/{name.removeprefix('@model_path/')}" for name in _blobs(spec.mlProgram)}
    if others := found - wanted - {weights}:
        raise ValueError(f"it refers to {min(others)}, of which its manifest knows nothing")


def _blobs(program: Any) -> set[str]:
    """Returns the names of the files that hold the constants of a program."""
    names: set[str] = set()
    blocks = [
        block
        for function in program.functions.values()
        for block in function.block_specializations.values()
    ]
    while blocks:
        for operation in blocks.pop().operations:
            blocks += operation.blocks
            arguments = [each for given in operation.inputs.values() for each in given.arguments]
            values = [*operation.attributes.values(), *(each.value for each in arguments)]
            names |= {each.blobFileValue.fileName for each in values}
    return names - {""}
