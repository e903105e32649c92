"""Image bytes to an answer, in the threads of this one process."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from time import perf_counter
from typing import Any

import numpy as np
from PIL import Image

from artifact.artifact import Artifact
from artifact.opening import open_artifact, open_runtime
from artifact.records import Logits
from artifact.runtimes.base import Runtime
from artifact.runtimes.batch_size import MOST_ON_CPU, MOST_ON_GPU, best_batch_size
from artifact.scores import largest, softmax
from core.preprocess import Pixels, encode_png
from serving.batcher import Batcher
from serving.decoding import Decoded, Upload, read
from serving.metrics import BATCHES, DEPTH, STAGES
from serving.settings import Settings
from serving.uploads import Refusal

Answer = dict[str, Any]  # ready for JSON
_STAGES = {name: STAGES.labels(name) for name in ("decode", "resize", "queue", "inference")}


@functools.cache
def the_predictor() -> Predictor:
    """Returns the one of this process, for the settings in its environment; not open yet.

    Raises:
        UserError: a bad setting, or no artifact that may be served.
    """
    settings = Settings.from_environment()
    artifact = open_artifact(settings.artifact, allow_unverified=settings.allow_unverified)
    return Predictor(settings, artifact)


class Predictor:
    """Decodes, resizes and infers, in batches that an idle thread takes as they come.

    Decoding, resizing and ONNX Runtime release the GIL, so one process fills all cores and
    nothing is copied between processes. A context manager: ready inside it.
    """

    def __init__(self, settings: Settings, artifact: Artifact) -> None:
        self.settings = settings
        self.artifact = artifact
        self.ready = False
        self.batch_size = 1
        self._runtime: Runtime | None = None
        self._batcher: Batcher[Upload, Answer] | None = None
        self._turn: AbstractContextManager[Any] = nullcontext()

    def load(self) -> None:
        """Returns once the artifact is loaded and has reproduced its golden batch.

        Raises:
            UserError: this machine cannot run the artifact, or answers something else.
        """
        settings = self.settings
        self._runtime = open_runtime(settings.runtime, self.artifact, threads=settings.call_threads)

    def open(self) -> None:
        """Returns once it is warm: loaded, and one image taken the whole way.

        Raises:
            UserError: as :meth:`load`.
        """
        if self._runtime is None:
            self.load()
        settings, runtime = self.settings, self._runtime
        assert runtime is not None
        if not runtime.parallel:
            self._turn = threading.Lock()
        pixels, _ = self.artifact.golden()
        self._work([Upload(encode_png(Image.fromarray(pixels[0])), 1)])
        self.batch_size = self._batch_size(runtime, pixels)
        self._batcher = Batcher(
            self._work,
            threads=settings.threads,
            size=self.batch_size,
            capacity=settings.queue_size,
            window=settings.batch_window_ms / 1e3,
        )
        self.ready = True

    def close(self) -> None:
        """Returns when all that was accepted is answered; nothing may follow."""
        self.ready = False
        assert self._batcher is not None
        assert self._runtime is not None
        self._batcher.close()
        self._runtime.close()
        self._batcher = self._runtime = None

    def __enter__(self) -> Predictor:
        """Returns itself, open."""
        if not self.ready:
            self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> dict[str, str]:
        """Returns what answers: model, precision and runtime."""
        return {
            "model": self.artifact.model,
            "precision": self.artifact.precision,
            "runtime": self.settings.runtime,
        }

    def predict(self, uploads: Sequence[Upload]) -> list[asyncio.Future[Any]]:
        """Returns for each upload what will be an answer, or raises why there is none.

        One that is cancelled is given up, if it is still queued.

        Raises:
            QueueFull: they do not all fit into the queue.
        """
        assert self._batcher is not None
        futures = self._batcher.submit(uploads)
        DEPTH.set(self._batcher.depth)
        return futures

    def _batch_size(self, runtime: Runtime, pixels: Pixels) -> int:
        most = self.artifact.batch_range[1]
        if self.settings.batch_size:
            return min(self.settings.batch_size, most)
        usual = MOST_ON_CPU if runtime.parallel else MOST_ON_GPU
        return best_batch_size(runtime, pixels, min(usual, most))

    def _work(self, uploads: Sequence[Upload]) -> list[Answer | Exception]:
        """Returns an answer or a refusal for each; what spoils one image spoils no other."""
        assert self._runtime is not None
        if self._batcher is not None:
            DEPTH.set(self._batcher.depth)
        images = [read(upload, self.settings, self.artifact.preprocess) for upload in uploads]
        good = [image.pixels for image in images if image.pixels is not None]
        logits: Iterator[Logits] = iter(())
        inference = 0.0
        if good:
            batch = np.stack(good)
            with self._turn:
                started = perf_counter()
                logits = iter(self._runtime(batch))
                inference = perf_counter() - started
            BATCHES.observe(len(good))
        return [image.refusal or self._answer(image, next(logits), inference) for image in images]

    def _answer(self, image: Decoded, logits: Logits, inference: float) -> Answer | Exception:
        if not np.isfinite(logits).all():
            return ValueError(f"{self.artifact.path} answers logits that are not finite")
        stages = {"decode": image.decode, "resize": image.resize}
        # All that is neither: its own wait, and that for the others of its batch.
        total = perf_counter() - image.upload.queued
        stages |= {"queue": total - sum(stages.values()) - inference, "inference": inference}
        for name, seconds in stages.items():
            _STAGES[name].observe(seconds)
        return {
            "predictions": self._predictions(logits, image.upload.top_k),
            "timings_ms": {name: round(seconds * 1e3, 3) for name, seconds in stages.items()},
        }

    def _predictions(self, logits: Logits, top_k: int) -> list[Answer]:
        scores = softmax(logits)
        return [
            {"label": self.artifact.labels[i], "index": int(i), "score": float(scores[i])}
            for i in largest(scores, top_k)
        ]


def unwrap(found: Sequence[Any]) -> list[Answer | Refusal]:
    """Returns ``found``, answers and refusals; raises what is neither: a failure of ours."""
    for each in found:
        if isinstance(each, BaseException) and not isinstance(each, Refusal):
            raise each
    return list(found)
