"""A machine with a GPU and a TensorRT that are not there, and an engine of a tiny network."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from fake_cuda import FakeCuda, FakeDriver
from tiny_artifact import PARITY, colour_means, tiny_artifact

from artifact.artifact import Artifact, write_artifact
from artifact.records import Limits, Source
from artifact.runtimes.tensorrt_builder import build_engine

SIDE = 4


@dataclass(frozen=True, slots=True)
class Machine:
    """``artifact`` holds an engine that fits; ``trt``, ``cuda`` and ``driver`` are the fakes."""

    artifact: Artifact
    trt: Any
    cuda: FakeCuda
    driver: FakeDriver

    @property
    def runtime(self) -> str:
        return self.artifact.format.replace("_", "-")


def graph() -> bytes:
    """Returns the bytes of :func:`tiny_artifact.colour_means`."""
    return bytes(colour_means(SIDE).SerializeToString())


def images(count: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)


def engine_artifact(path: Path, flavour: str) -> Artifact:
    """Returns an artifact of ``graph()``, with profiles of their own for 1 and 8 images."""
    path.mkdir()
    engine, fingerprint = build_engine(graph(), flavour, batch_range=(1, 32), batches=(8, 1, 8))
    (path / "model.onnx").write_bytes(graph())
    (path / "model.engine").write_bytes(engine)
    pixels = images(3)
    artifact = tiny_artifact(
        path,
        SIDE,
        model="mobilenet_v3_large",
        data="digits",
        precision="fp16",
        format=flavour,
        batch_range=(1, 32),
        limits=Limits(top1_agreement=None, top1_drop=None, golden_error=1.0),
        parity=replace(PARITY, runtime=flavour),
        source=Source(origin="trained on digits", data="digits"),
        fingerprint=fingerprint,
    )
    return write_artifact(artifact, pixels, pixels.mean(axis=(1, 2), dtype=np.float32))
