"""Classifies images with an artifact.

>>> with Classifier.open(Path("artifacts/mobilenet_v3_large-digits")) as classify:
...     classify("digit.png").label
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
from PIL import Image, ImageOps

from artifact.answering import answering_of
from artifact.artifact import Artifact
from artifact.opening import check_runtime, open_artifact, open_runtime
from artifact.records import Logits
from artifact.runtimes.base import Runtime, runs_on_gpu
from artifact.runtimes.batch_size import MOST_ON_CPU, MOST_ON_GPU, best_batch_size
from artifact.store import Choice, choose
from core import cli
from core.cores import usable_cores
from core.errors import UserError, first_line, in_words, is_of_library
from core.image_types import decode_image
from core.preprocess import ImageError, Pixels, Truncated, image_of
from predict.ordered import in_order

TOP_K = 5
NOT_FINITE = "the network answers logits that are not finite"
ImageSource = str | Path | bytes | Image.Image | Pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of accepted images; the defaults are those of the service.

    Attributes:
        max_bytes: size limit of an image file.
        max_pixels: limit of an image's pixels, checked before decoding.
        truncated: whether to accept truncated JPEGs; see :func:`core.preprocess.decode`.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000
    truncated: Truncated = "refuse"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """The prediction for one image.

    Attributes:
        label: the most likely class.
        index: its index in the labels.
        score: its score in [0, 1]: the softmax, or the sigmoid of each of several labels.
        top: (label, score) of the most likely classes, in descending order; if an image may have
            several labels, with all that it has.
        indices: their indices in the labels.
        labels: the answer: ``label``, or none where that is unsure and the classifier abstains; if
            an image may have several labels, all with a score above their threshold.
    """

    label: str
    index: int
    score: float
    top: tuple[tuple[str, float], ...]
    indices: tuple[int, ...]
    labels: tuple[str, ...]


class Classifier:
    """Classifies images with one artifact, in batches, in several threads. A context manager.

    Args:
        artifact: the artifact.
        runtime: its runtime; closed together with this object.
        threads: number of batches processed concurrently; None for one per core.
        batch_size: most images per call; 0 means 4 on a CPU, and on a GPU the most efficient size
            measured now.
        limits: limits of accepted images.
        abstain: whether to answer no class where the most likely one is unsure.
    """

    def __init__(
        self,
        artifact: Artifact,
        runtime: Runtime,
        *,
        threads: int | None = None,
        batch_size: int = 0,
        limits: Limits = Limits(),
        abstain: bool = False,
    ) -> None:
        self.artifact = artifact
        self.answering = answering_of(artifact, abstain=abstain)
        self.limits = limits
        self.threads = threads or usable_cores()
        self._runtime = runtime
        self._turn: AbstractContextManager[Any] = nullcontext()
        if not runtime.parallel:
            self._turn = threading.Lock()
        most = artifact.batch_range[1]
        if not batch_size and runs_on_gpu(runtime.name):
            pixels, _ = artifact.golden()
            batch_size = best_batch_size(runtime, pixels, min(MOST_ON_GPU, most))
        # On a CPU a call of 4 takes as long as 4 calls, but the threads synchronise less often.
        self.batch_size = min(batch_size or MOST_ON_CPU, most)

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        runtime: str | None = None,
        threads: int | None = None,
        batch_size: int = 0,
        limits: Limits = Limits(),
        allow_unverified: bool = False,
        abstain: bool = False,
    ) -> Self:
        """Opens an artifact, checks its files and golden batch, and returns its classifier.

        Args:
            path: folder of the artifact, or a folder of artifacts with a benchmark's pick.
            runtime: name of the runtime. None: the benchmark's pick, else the one that verified the
                format: ``ort-cpu`` for ONNX.
            threads: number of batches processed concurrently; None for one per core.
            batch_size: most images per call; 0 means 4 on a CPU, and on a GPU the most efficient.
            limits: limits of accepted images.
            allow_unverified: whether to accept an artifact that was never run.
            abstain: whether to answer no class where the most likely one is unsure.

        Raises:
            UserError: no artifact, a damaged or unverified one, a runtime that is not available or
                fails the golden batch, a number that is too small, or an artifact without a
                threshold that is to abstain.
        """
        for name, value, least in (("threads", threads, 1), ("batch_size", batch_size, 0)):
            if value is not None and value < least:
                raise UserError(f"{name} is {value}: it must be at least {least}")
        choice = chosen(Path(path))
        artifact = open_artifact(choice.artifact, allow_unverified=allow_unverified)
        answering_of(artifact, abstain=abstain)  # before a runtime is opened
        name = runtime or choice.runtime or artifact.spec.proving_runtime
        check_runtime(name, artifact)
        opened = open_runtime(name, artifact, threads=1)  # images in parallel use all cores
        return cls(
            artifact,
            opened,
            threads=threads,
            batch_size=batch_size,
            limits=limits,
            abstain=abstain,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the runtime; the classifier must not be used afterwards."""
        self._runtime.close()

    @property
    def labels(self) -> tuple[str, ...]:
        """Returns the classes, in the order of the logits."""
        return self.artifact.labels

    @property
    def runtime(self) -> str:
        """Returns the name of the runtime."""
        return self._runtime.name

    @overload  # a str is an iterable of str, too: the first fits it
    def __call__(  # type: ignore[overload-overlap]
        self, images: ImageSource, *, top_k: int = TOP_K
    ) -> Prediction: ...

    @overload
    def __call__(
        self, images: Iterable[ImageSource], *, top_k: int = TOP_K
    ) -> list[Prediction]: ...

    def __call__(
        self, images: ImageSource | Iterable[ImageSource], *, top_k: int = TOP_K
    ) -> Prediction | list[Prediction]:
        """Returns the prediction for an image, or a list of predictions for several.

        Args:
            images: path or bytes of a file, a PIL image, pixels uint8 (H, W, C); or an iterable
                of these.
            top_k: number of classes in ``top``, at most all.

        Raises:
            ImageError: an image cannot be classified. :func:`predict.pipeline.classify` continues
                with the others instead.
        """
        if isinstance(images, str | Path | bytes | Image.Image | np.ndarray):
            (found,) = self.classify([self.pixels(images)], top_k)
            return _sound(found)

        _check_kind(images, Iterable)

        def work(sources: Sequence[ImageSource]) -> list[Prediction]:
            pixels = [self.pixels(source) for source in sources]
            return [_sound(found) for found in self.classify(pixels, top_k)]

        return list(in_order(work, images, threads=self.threads, size=self.batch_size))

    def pixels(self, image: ImageSource) -> Pixels:
        """Returns ``image`` as the network's input: uint8 (H, W, C).

        Raises:
            ImageError: it cannot be read, or exceeds a limit.
        """
        preprocess = self.artifact.preprocess
        if isinstance(image, np.ndarray):
            channels = preprocess.channels
            if image.dtype != np.uint8 or image.shape[2:] != (channels,) or not image.size:
                raise ImageError(
                    f"pixels are {image.dtype} {list(image.shape)}: they must be uint8 "
                    f"[height, width, {channels}], {preprocess.mode}"
                )
            return preprocess(image_of(image))
        if isinstance(image, Image.Image):
            try:
                return preprocess(ImageOps.exif_transpose(image))
            except (OSError, SyntaxError, ValueError) as error:  # Pillow reads it only now
                raise ImageError(f"cannot be read as an image ({first_line(error)})") from error
        _check_kind(image, str | Path | bytes)
        data = image if isinstance(image, bytes) else read_file(Path(image), self.limits.max_bytes)
        check_size(data, self.limits.max_bytes)
        decoded = decode_image(
            data,
            max_pixels=self.limits.max_pixels,
            least=preprocess.least,
            truncated=self.limits.truncated,
            mode=preprocess.mode,
        )
        return preprocess(decoded)

    def classify(self, pixels: Sequence[Pixels], top_k: int) -> list[Prediction | None]:
        """Returns the prediction for each image; None where the logits are not finite.

        Args:
            pixels: at most :attr:`batch_size` images, each uint8 (H, W, C).
            top_k: number of classes in ``top``, at most all.

        Raises:
            UserError: the runtime fails.
        """
        if not pixels:
            return []
        batch = np.stack(pixels)
        try:
            with self._turn:
                logits = self._runtime(batch)
        except Exception as error:  # runtimes' exceptions have no common base class
            if isinstance(error, UserError) or not is_of_library(error):
                raise
            raise UserError(
                f"{self.runtime} fails at a batch of {len(batch)} ({in_words(error)}); try "
                "--batch-size 1, or another --runtime"
            ) from error
        return [self._prediction(each, min(top_k, len(self.labels))) for each in logits]

    def _prediction(self, logits: Logits, top_k: int) -> Prediction | None:
        if not np.isfinite(logits).all():
            return None
        scores, chosen, indices = self.answering.answer(logits, top_k)
        top = tuple((self.labels[index], float(scores[index])) for index in indices)
        (label, score), index = top[0], indices[0]
        labels = tuple(self.labels[index] for index in chosen)
        return Prediction(
            label=label, index=index, score=score, top=top, indices=indices, labels=labels
        )


def read_file(path: Path, max_bytes: int) -> bytes:
    """Returns the bytes of an image file; reads at most ``max_bytes``.

    Raises:
        ImageError: it cannot be read, or is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:  # such as a NUL in its name
        reason = getattr(error, "strerror", None) or first_line(error)
        raise ImageError(f"cannot be read ({reason})") from None
    check_size(data, max_bytes)
    return data


def check_size(data: bytes, max_bytes: int) -> None:
    """Raises ImageError if an image file is empty or too large."""
    if len(data) > max_bytes:
        raise ImageError(f"it exceeds the limit of {max_bytes} bytes (--max-bytes)")
    if not data:
        raise ImageError("it holds no bytes")


def _check_kind(image: object, kind: Any) -> None:
    """Raises ImageError if ``image`` is none of ``kind``, which only callers without types give."""
    if not isinstance(image, kind):
        raise ImageError(
            f"{image!r:.40} is no image, but {type(image).__name__}: give a path, the bytes of a "
            "file, a PIL image or an array of pixels"
        )


def _sound(prediction: Prediction | None) -> Prediction:
    if prediction is None:
        raise ImageError(NOT_FINITE)
    return prediction


def chosen(path: Path) -> Choice:
    """Returns the artifact that ``path`` stands for; says so where nothing was measured."""
    choice = choose(path)
    if choice.artifact != path and choice.runtime is None:
        cli.notes().print(f"{choice.artifact}: {choice.why}", soft_wrap=True, markup=False)
    return choice
