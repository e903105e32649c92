"""Compares an engine's fingerprint with this machine, before TensorRT reads the engine.

TensorRT's own errors name neither the engine's properties, nor the machine's, nor a remedy.
"""

from __future__ import annotations

from artifact.artifact import Artifact
from artifact.runtimes.base import RuntimeUnavailable
from artifact.runtimes.gpu import Gpu
from core.files import sha256


class EngineMismatch(RuntimeUnavailable):
    """An engine that was built for another machine; the message says how to rebuild it.

    Attributes:
        wrong: the part of the message that says what differs.
    """

    def __init__(self, artifact: Artifact, wrong: str) -> None:
        self.wrong = wrong
        super().__init__(
            f"{artifact.model_file} does not fit this machine: {wrong}; rebuild it from the graph "
            f"beside it with: python -m export verify --rebuild {artifact.path} (or "
            f"load_runtime(..., rebuild=True)), or export it again with: "
            f"{artifact.rebuild_command}"
        )


def mismatches(artifact: Artifact, version: str, gpu: Gpu) -> str:
    """Returns all differences between an engine and this machine; empty if it fits.

    TensorRT's version and the graph must be those it was built with, and the GPU's compute
    capability one of those it was built for. The driver must not be older than the one it was
    built with: NVIDIA guarantees compatibility only in that direction.

    Args:
        artifact: the engine's artifact.
        version: version of the installed TensorRT flavour.
        gpu: the GPU of this machine.
    """
    built = artifact.fingerprint
    assert built is not None, "an engine has a fingerprint"
    wrong = []
    if built.version != version:
        wrong.append(f"built by {artifact.format} {built.version}, here is {version}")
    if gpu.capability not in built.capabilities:
        wrong.append(
            f"built for compute capability {', '.join(built.capabilities)}, here is "
            f"{gpu.capability} ({gpu.name})"
        )
    if built.driver is not None and _numbers(gpu.driver) < _numbers(built.driver):
        wrong.append(
            f"built with a driver for CUDA {built.driver}, here is an older one, for {gpu.driver}"
        )
    if (beside := sha256(artifact.graph_file)) != built.onnx_sha256:
        wrong.append(
            f"built from the graph of sha256 {built.onnx_sha256[:12]}, beside it lies {beside[:12]}"
        )
    return "; ".join(wrong)


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]
