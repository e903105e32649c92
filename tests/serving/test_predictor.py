from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from counting import Counting
from PIL import Image

from artifact.artifact import Artifact
from artifact.records import Logits
from artifact.runtimes.base import Runtime
from artifact.runtimes.batch_size import MOST_ON_CPU
from artifact.runtimes.openvino_cpu import OpenvinoRuntime
from artifact.runtimes.ort import OrtRuntime
from artifact.runtimes.tensorrt_engine import EngineRuntime
from core.preprocess import Pixels, encode_png
from serving import predictor as predictor_module
from serving.predictor import Predictor, Upload
from serving.settings import Settings


@pytest.mark.parametrize("parallel", [False, True])
def test_a_runtime_that_takes_one_call_at_a_time_gets_one(
    artifact_path: Path,
    encoded: Callable[..., bytes],
    monkeypatch: pytest.MonkeyPatch,
    parallel: bool,
) -> None:
    runtime = Counting(parallel)
    monkeypatch.setattr(predictor_module, "open_runtime", lambda *_, **__: runtime)

    async def ask(predictor: Predictor) -> None:
        await asyncio.gather(*predictor.predict([Upload(encoded(), 1)] * 8))

    settings = Settings(threads=4, batch_size=1)
    with Predictor(settings, Artifact.load(artifact_path)) as predictor:
        asyncio.run(ask(predictor))
    assert (runtime.most > 1) == parallel


def test_only_an_engine_takes_one_call_at_a_time() -> None:
    assert (OrtRuntime.parallel, OpenvinoRuntime.parallel) == (True, True)
    assert EngineRuntime.parallel is False


@pytest.mark.parametrize("name", ["counting", "ort-cuda"])
def test_only_a_gpu_tries_large_batches(
    make_artifact: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def largest(runtime: Runtime, pixels: Pixels, most: int) -> int:
        return most

    runtime = Counting(parallel=False)  # is locked, wherever it computes
    runtime.name = name
    monkeypatch.setattr(predictor_module, "open_runtime", lambda *_, **__: runtime)
    monkeypatch.setattr(predictor_module, "best_batch_size", largest)
    artifact = Artifact.load(make_artifact(batch_range=(1, 9)))
    with Predictor(Settings(threads=1), artifact) as predictor:
        assert predictor.batch_size == (9 if name == "ort-cuda" else MOST_ON_CPU)


class Spoilt(Counting):
    """Answers each image with its brightest pixel, and a white one with what is no number."""

    def __call__(self, pixels: Pixels) -> Logits:
        logits = pixels.max(axis=(1, 2)).astype(np.float32)
        logits[logits.max(axis=1) == 255] = np.nan
        return logits


def test_logits_that_are_not_finite_fail_their_own_image_only(
    artifact_path: Path, encoded: Callable[..., bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictor_module, "open_runtime", lambda *_, **__: Spoilt(parallel=True))
    white = Image.new("RGB", (40, 40), "white")
    uploads = [Upload(encode_png(image), 1) for image in (Image.new("RGB", (40, 40)), white)]

    async def ask(predictor: Predictor) -> list[object]:
        return await asyncio.gather(*predictor.predict(uploads), return_exceptions=True)

    with Predictor(Settings(threads=1, batch_size=2), Artifact.load(artifact_path)) as predictor:
        good, bad = asyncio.run(ask(predictor))
    assert isinstance(good, dict)
    assert isinstance(bad, ValueError)
    assert "logits that are not finite" in str(bad)
