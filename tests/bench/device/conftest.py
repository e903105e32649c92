from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from fake_phone import FakePhone, fake_phone
from tiny_artifact import colour_means, tiny_artifact

from artifact.artifact import Artifact, write_artifact
from core.files import staged

__all__ = ["FakePhone", "fake_phone"]
SIDE = 8


@pytest.fixture
def make_phone_artifact(tmp_path: Path) -> Callable[..., Artifact]:
    """Makes artifacts under ``tmp_path / "artifacts"``; nothing here reads their model files."""

    def make(
        name: str = "litert-fp32", model: str = "tiny", size: int = 100, data: str = "toy"
    ) -> Artifact:
        form, _, precision = name.rpartition("-")
        path = tmp_path / "artifacts" / f"{model}-{data}" / name
        pixels = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
        with staged(path) as folder:
            artifact = tiny_artifact(
                folder, SIDE, model=model, data=data, precision=precision, format=form
            )
            onnx.save(colour_means(SIDE), str(artifact.graph_file))
            if artifact.model_file != artifact.graph_file:
                artifact.model_file.write_bytes(bytes(size))
            write_artifact(artifact, pixels, pixels.mean(axis=(1, 2)).astype(np.float32))
        return Artifact.load(path)

    return make
