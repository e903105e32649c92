"""Image bytes to an answer, in the threads of this one process."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from export.artifact import Artifact
from export.golden import check_golden
from export.runtimes.base import Runtime, load_runtime
from models.errors import UserError
from models.preprocess import ImageError, TooManyPixelsError, decode, encode_png
from serving.settings import PREFIX, Settings
from serving.uploads import Refusal

Answer = dict[str, Any]  # ready for JSON


def open_artifact(settings: Settings) -> Artifact:
    """Returns the artifact that ``settings`` name, every file of it checked.

    Raises:
        UserError: no artifact, a damaged one, or one that was never run and is not allowed.
    """
    artifact = Artifact.load(settings.artifact)
    if artifact.unverified and not settings.allow_unverified:
        raise UserError(
            f"{artifact.path}: not verified where it was made ({artifact.unverified}); "
            f"run python -m export verify {artifact.path} here, or pass --allow-unverified "
            f"({PREFIX}ALLOW_UNVERIFIED=1)"
        )
    return artifact


def open_runtime(settings: Settings, artifact: Artifact) -> Runtime:
    """Returns the runtime with ``artifact`` loaded, after it reproduced the golden batch.

    Raises:
        UserError: this machine cannot run it, or it answers something else.
    """
    runtime = load_runtime(settings.runtime, artifact, threads=settings.call_threads)
    check_golden(runtime, artifact)
    return runtime


class Predictor:
    """Decodes, resizes and infers; a request keeps one of ``settings.threads`` threads.

    Decoding, resizing and ONNX Runtime release the GIL, so one process fills all cores and
    nothing is copied between processes. A context manager: ready inside it.
    """

    def __init__(self, settings: Settings, artifact: Artifact) -> None:
        self.settings = settings
        self.artifact = artifact
        self.ready = False
        self._runtime: Runtime | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._turn: AbstractContextManager[Any] = nullcontext()

    def __enter__(self) -> Predictor:
        """Returns itself, warmed up: golden batch reproduced, one image taken the whole way."""
        self._runtime = open_runtime(self.settings, self.artifact)
        if not self._runtime.parallel:
            self._turn = threading.Lock()
        self._pool = ThreadPoolExecutor(self.settings.threads, "predict")
        pixels, _ = self.artifact.golden()
        self._answer(encode_png(Image.fromarray(pixels[0])), 1, perf_counter())
        self.ready = True
        return self

    def __exit__(self, *_: object) -> None:
        self.ready = False
        assert self._pool is not None
        assert self._runtime is not None
        self._pool.shutdown()
        self._runtime.close()

    async def predict(self, data: bytes, top_k: int) -> Answer:
        """Returns the ``top_k`` likeliest labels of the image in ``data``, with timings.

        Raises:
            Refusal: the bytes are not an image, or one with too many pixels.
        """
        assert self._pool is not None
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, self._answer, data, top_k, perf_counter())

    def _answer(self, data: bytes, top_k: int, queued: float) -> Answer:
        assert self._runtime is not None
        started = perf_counter()
        image = self._decode(data)
        decoded = perf_counter()
        pixels = self.artifact.preprocess(image)
        resized = perf_counter()
        with self._turn:
            turn = perf_counter()
            (logits,) = self._runtime(pixels[np.newaxis])
        inferred = perf_counter()
        return {
            "predictions": self._predictions(logits, top_k),
            "model": self.artifact.model,
            "precision": self.artifact.precision,
            "runtime": self._runtime.name,
            "timings_ms": {
                "decode": _ms(decoded - started),
                "resize": _ms(resized - decoded),
                "queue": _ms(started - queued + turn - resized),
                "inference": _ms(inferred - turn),
            },
        }

    def _decode(self, data: bytes) -> Image.Image:
        try:
            return decode(data, max_pixels=self.settings.max_pixels)
        except TooManyPixelsError as error:
            raise Refusal(413, "too_many_pixels", str(error)) from None
        except ImageError as error:
            raise Refusal(400, "not_an_image", str(error)) from error

    def _predictions(self, logits: npt.NDArray[np.float32], top_k: int) -> list[Answer]:
        scores = softmax(logits)
        return [
            {"label": self.artifact.labels[i], "index": int(i), "score": float(scores[i])}
            for i in np.argsort(-scores, kind="stable")[:top_k]
        ]


def softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Returns probabilities that sum to 1, in the order of ``logits`` (one image's)."""
    powers = np.exp(logits.astype(np.float64) - logits.max())
    return np.asarray(powers / powers.sum(), dtype=np.float64)


def _ms(seconds: float) -> float:
    return round(seconds * 1e3, 3)
