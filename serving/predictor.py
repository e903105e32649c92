"""Classifies uploads: decodes, resizes and runs the artifact, in threads of this process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, cast

import numpy as np

from artifact.answering import UNSURE, answering_of
from artifact.artifact import Artifact
from artifact.opening import open_runtime
from artifact.records import Logits
from artifact.runtimes.base import Runtime, runs_on_gpu
from artifact.runtimes.batch_size import MOST_ON_CPU, MOST_ON_GPU, best_batch_size
from artifact.scores import Scores
from core.image_types import decode_image
from core.preprocess import (
    ImageError,
    Pixels,
    Preprocess,
    TooManyPixelsError,
    UnsupportedImageError,
    encode_png,
    image_of,
)
from serving.answers import Found, Names, Prediction, Predictions, Timings
from serving.batcher import Batcher, Threads
from serving.bodies import decode_base64
from serving.errors import Refusal
from serving.metrics import BATCHES, DEPTH, STAGES
from serving.prediction_log import PredictionLog
from serving.settings import Settings
from serving.uploads import check_size

_STAGES = ("decode", "resize", "queue", "inference")


Result = Found | Logits


@dataclass(frozen=True, slots=True)
class Upload:
    """One image with its ``top_k`` and the time when it was queued.

    Attributes:
        data: content of the file, as bytes or base64 text; or pixels, uint8 (H, W, channels), as
            the network takes them.
        top_k: how many labels are answered; None for the logits instead.
        shadow: whether nobody gets the answer.
    """

    data: bytes | str | Pixels
    top_k: int | None
    shadow: bool = False
    queued: float = field(default_factory=perf_counter)


@dataclass(slots=True)
class Decoded:
    """A decoded image or its refusal, with the seconds of each stage."""

    upload: Upload
    pixels: Pixels | None = None
    refusal: Refusal | None = None
    decode: float = 0.0
    resize: float = 0.0


class Predictor:
    """Decodes, resizes and infers in batches, which idle threads take from a queue.

    Decoding, resizing and ONNX Runtime release the GIL, so one process uses all cores and nothing
    is copied between processes. A context manager, open inside the block.

    Args:
        settings: limits, batches, and the runtime.
        artifact: what is run.
        key: name and version in the metrics.
    """

    def __init__(
        self, settings: Settings, artifact: Artifact, key: tuple[str, str] = ("", "")
    ) -> None:
        self.settings = settings
        self.artifact = artifact
        self._key = key
        self._answering = answering_of(artifact, abstain=settings.abstain)
        self.ready = False
        self.batch_size = 1
        self._runtime: Runtime | None = None
        self._batcher: Batcher[Upload, Result] | None = None
        self._background: Batcher[Upload, Result] | None = None
        self._pool: Threads | None = None  # that its batchers share with those of other models
        self._threads: Threads | None = None
        self._stages = {stage: STAGES.labels(stage, *key) for stage in _STAGES}
        self._batches, self._depth = BATCHES.labels(*key), DEPTH.labels(*key)
        self._turn: AbstractContextManager[Any] = nullcontext()
        self._log: PredictionLog | None = None

    def load(self) -> None:
        """Loads the artifact and checks it against its golden batch.

        Raises:
            UserError: this machine cannot run the artifact, or it fails the golden batch.
        """
        settings = self.settings
        self._runtime = open_runtime(settings.runtime, self.artifact, threads=settings.call_threads)

    def open(self, threads: Threads | None = None) -> None:
        """Loads and warms up: one image goes through all stages.

        Args:
            threads: those of all models of this process; None for its own.

        Raises:
            UserError: as :meth:`load`; nothing stays open then.
        """
        if self._runtime is None:
            self.load()
        try:
            self._start(threads)
        except BaseException:
            self.close()
            raise

    def _start(self, threads: Threads | None) -> None:
        settings, runtime = self.settings, self._runtime
        assert runtime is not None
        if not runtime.parallel:
            self._turn = threading.Lock()
        pixels, _ = self.artifact.golden()
        self._work([Upload(encode_png(image_of(pixels[0])), 1)])
        self.batch_size = self._batch_size(runtime, pixels)
        if settings.log_predictions is not None:
            self._log = PredictionLog(settings, self.artifact, self._key)
        if threads is None:
            threads = self._threads = Threads(settings.threads)
        self._pool = threads
        self._batcher = Batcher(
            self._work,
            threads=threads,
            size=self.batch_size,
            capacity=settings.queue_size,
            window=settings.batch_window_ms / 1e3,
        )
        self.ready = True

    def close(self) -> None:
        """Waits until all accepted uploads are answered; none may be submitted afterwards."""
        self.ready = False
        assert self._runtime is not None
        if self._batcher is not None:
            self._batcher.close()
        if self._background is not None:
            self._background.close()
            self._background = None
        if self._threads is not None:
            self._threads.close()
            self._threads = None
        self._runtime.close()
        if self._log is not None:
            self._log.close()
        self._batcher = self._runtime = self._log = None

    def __enter__(self) -> Predictor:
        """Returns itself, open."""
        if not self.ready:
            self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def names(self) -> Names:
        """Returns model, precision and runtime."""
        return {
            "model": self.artifact.model,
            "precision": self.artifact.precision,
            "runtime": self.settings.runtime,
        }

    def predict(self, uploads: Sequence[Upload]) -> list[asyncio.Future[Any]]:
        """Queues ``uploads`` and returns a future for each, with its result or an exception.

        A cancelled one is skipped if it is still queued.

        Raises:
            Refusal: they do not all fit into the queue.
        """
        assert self._batcher is not None
        futures = self._batcher.submit(uploads)
        self._depth.set(self._batcher.depth)
        return futures

    def mirror(self, uploads: Sequence[Upload]) -> list[asyncio.Future[Any]]:
        """As :meth:`predict`, for answers that nobody waits for: others go first.

        Raises:
            Refusal: more wait already than there are threads.
        """
        if self._background is None:
            assert self._pool is not None
            count = self.settings.threads
            self._background = Batcher(
                self._work, threads=self._pool, size=1, capacity=count, background=True
            )
        return self._background.submit(uploads)

    def scores(self, logits: Logits) -> Scores:
        """Returns the scores of ``logits`` (N, C), as answers have them."""
        return np.stack([self._answering.answer(row, 1)[0] for row in logits])

    def _batch_size(self, runtime: Runtime, pixels: Pixels) -> int:
        most = self.artifact.batch_range[1]
        if self.settings.batch_size:
            fixed = min(self.settings.batch_size, most)
            for size in range(1, fixed + 1):
                runtime.prepare(size)
            return fixed
        usual = MOST_ON_GPU if runs_on_gpu(runtime.name) else MOST_ON_CPU
        return best_batch_size(runtime, pixels, min(usual, most))

    def _work(self, uploads: Sequence[Upload]) -> list[Result | Exception]:
        """Returns a result or a refusal for each; errors of one image do not affect the others."""
        assert self._runtime is not None
        if self._batcher is not None:
            self._depth.set(self._batcher.depth)
        images = [
            decode_upload(upload, self.settings, self.artifact.preprocess) for upload in uploads
        ]
        good = [image.pixels for image in images if image.pixels is not None]
        logits: Iterator[Logits] = iter(())
        inference = 0.0
        if good:
            batch = np.stack(good)
            with self._turn:
                started = perf_counter()
                logits = iter(self._runtime(batch))
                inference = perf_counter() - started
            self._batches.observe(len(good))
        return [image.refusal or self._answer(image, next(logits), inference) for image in images]

    def _answer(self, image: Decoded, logits: Logits, inference: float) -> Result | Exception:
        if not np.isfinite(logits).all():
            return ValueError(f"{self.artifact.path} answers logits that are not finite")
        stages = {"decode": image.decode, "resize": image.resize}
        # The rest of the time: waiting in the queue, and for the others of its batch.
        total = perf_counter() - image.upload.queued
        stages |= {"queue": total - sum(stages.values()) - inference, "inference": inference}
        for name, seconds in stages.items():
            self._stages[name].observe(seconds)
        top_k = image.upload.top_k
        if top_k is None and self._log is None:
            return logits
        timings = {name: round(seconds * 1e3, 3) for name, seconds in stages.items()}
        found: Found = {
            **self._predictions(logits, top_k or self.settings.top_k),
            "timings_ms": cast(Timings, timings),
        }
        if self._log is not None and image.pixels is not None:
            upload = image.upload
            self._log.offer(upload.data, image.pixels, found, shadow=upload.shadow)
        return logits if top_k is None else found

    def _predictions(self, logits: Logits, top_k: int) -> Predictions:
        labels, thresholds = self.artifact.labels, self._answering.thresholds
        scores, chosen, shown = self._answering.answer(logits, top_k)
        predictions: list[Prediction] = [
            {"label": labels[i], "index": i, "score": float(scores[i])} for i in shown
        ]
        if thresholds:
            for each in predictions:
                each["threshold"] = thresholds[each["index"]]
            return {"labels": [labels[i] for i in chosen], "predictions": predictions}
        if self._answering.least is None:
            return {"predictions": predictions}
        if not chosen:
            return {"label": None, "reason": UNSURE, "predictions": predictions}
        return {"label": labels[chosen[0]], "predictions": predictions}


def decode_upload(upload: Upload, settings: Settings, preprocess: Preprocess) -> Decoded:
    """Decodes ``upload`` into an image or a refusal; never raises for invalid client input."""
    image = Decoded(upload)
    if isinstance(upload.data, np.ndarray):
        image.pixels = upload.data
        return image
    started = perf_counter()
    try:
        data = _image_bytes(upload.data, settings.max_bytes)
        decoded = decode_image(
            data,
            max_pixels=settings.max_pixels,
            least=preprocess.least,
            truncated=settings.truncated,
            mode=preprocess.mode,
        )
    except Refusal as refusal:
        # With its traceback it would keep itself and the file until garbage is collected.
        image.refusal = refusal.with_traceback(None)
    except TooManyPixelsError as error:
        image.refusal = Refusal(413, "too_many_pixels", str(error))
    except UnsupportedImageError as error:
        image.refusal = Refusal(415, "unsupported_image", str(error))
    except ImageError as error:
        image.refusal = Refusal(400, "not_an_image", str(error))
    else:
        between = perf_counter()
        image.decode = between - started
        image.pixels = preprocess(decoded)
        image.resize = perf_counter() - between
    return image


def _image_bytes(data: bytes | str, max_bytes: int) -> bytes:
    """Returns the bytes of an image file; raises Refusal if empty, too large or not base64."""
    file = decode_base64(data, max_bytes) if isinstance(data, str) else data
    check_size(file, max_bytes)
    return file


def unwrap(found: Sequence[Any]) -> list[Any]:
    """Returns ``found``, results and refusals; raises any other exception: a server error."""
    for each in found:
        if isinstance(each, BaseException) and not isinstance(each, Refusal):
            raise each
    return list(found)
