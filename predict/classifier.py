"""An artifact as a function from images to predictions.

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

from artifact.artifact import Artifact
from artifact.opening import open_artifact, open_runtime
from artifact.records import Logits
from artifact.runtimes.base import Runtime, is_servable, list_runtimes, runs_on_gpu
from artifact.runtimes.batch_size import MOST_ON_CPU, MOST_ON_GPU, best_batch_size
from artifact.scores import largest, softmax
from artifact.store import read_pick
from core.cores import usable_cores
from core.errors import UserError, closest, first_line, in_words, is_of_library
from core.image_types import decode_image
from core.preprocess import ImageError, Pixels, Truncated
from predict.ordered import in_order

TOP_K = 5
NOT_FINITE = "the network answers logits that are not finite"
ImageSource = str | Path | bytes | Image.Image | Pixels


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Which images are taken; the defaults are those of the service.

    Attributes:
        max_bytes: largest image file.
        max_pixels: most pixels of an image, judged before decoding.
        truncated: whether to take a JPEG that is cut short; see :func:`core.preprocess.decode`.
    """

    max_bytes: int = 20_000_000
    max_pixels: int = 50_000_000
    truncated: Truncated = "refuse"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What the network says of one image.

    Attributes:
        label: the most likely class.
        index: its number among the labels.
        score: its softmax score in [0, 1].
        top: (label, score) of the most likely classes, this one first.
        indices: their numbers among the labels.
    """

    label: str
    index: int
    score: float
    top: tuple[tuple[str, float], ...]
    indices: tuple[int, ...]


class Classifier:
    """Classifies images with one artifact, a call per batch and thread. A context manager.

    Args:
        artifact: what to run.
        runtime: what runs it; closed with this.
        threads: how many batches are decoded and inferred at once; None for one per core.
        batch_size: most images in one call; 0 is 4 on a CPU, and on a GPU what measures best now.
        limits: which images are taken.
    """

    def __init__(
        self,
        artifact: Artifact,
        runtime: Runtime,
        *,
        threads: int | None = None,
        batch_size: int = 0,
        limits: Limits = Limits(),
    ) -> None:
        self.artifact = artifact
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
        # A call of four costs a CPU what four calls do, and the threads meet a quarter as often.
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
    ) -> Self:
        """Returns the classifier of an artifact that was checked and reproduced its golden batch.

        Args:
            path: its folder, or one whose artifacts a benchmark picked from.
            runtime: what executes it. None: what the benchmark picked for it, else the one that
                proved its format: ``ort-cpu`` for ONNX.
            threads: images decoded and inferred at once; None for one per core.
            batch_size: most images in one call; 0 is 4 on a CPU, and on a GPU what measures best.
            limits: which images are taken.
            allow_unverified: whether to take an artifact that was never run where it was made.

        Raises:
            UserError: no artifact, a damaged or unverified one, a runtime that is not here or
                answers something else, a number below its least.
        """
        for name, value, least in (("threads", threads, 1), ("batch_size", batch_size, 0)):
            if value is not None and value < least:
                raise UserError(f"{name} is {value}: it must be at least {least}")
        folder, picked = pick(Path(path))
        artifact = open_artifact(folder, allow_unverified=allow_unverified)
        name = runtime or picked or artifact.spec.proving_runtime
        if not is_servable(name):
            allowed = filter(is_servable, list_runtimes(artifact.format))
            raise UserError(f"runtime is {name!r}: {closest(name, allowed)}")
        opened = open_runtime(name, artifact, threads=1)  # images side by side fill the cores
        return cls(artifact, opened, threads=threads, batch_size=batch_size, limits=limits)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Frees the runtime; no call may follow."""
        self._runtime.close()

    @property
    def labels(self) -> tuple[str, ...]:
        """Returns the classes, in the order of the logits."""
        return self.artifact.labels

    @property
    def runtime(self) -> str:
        """Returns the name of what executes the artifact."""
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
        """Returns the prediction of an image, or those of several, in order.

        Args:
            images: a file's path or its bytes, a PIL image, uint8 pixels (H, W, 3) in RGB; or an
                iterable of these.
            top_k: how many classes ``top`` holds; at most all there are.

        Raises:
            ImageError: one of them cannot be classified. :func:`predict.pipeline.classify` goes on
                with the others.
        """
        if isinstance(images, str | Path | bytes | Image.Image | np.ndarray):
            (found,) = self.classify([self.pixels(images)], top_k)
            return _sound(found)

        def work(sources: Sequence[ImageSource]) -> list[Prediction]:
            pixels = [self.pixels(source) for source in sources]
            return [_sound(found) for found in self.classify(pixels, top_k)]

        return list(in_order(work, images, threads=self.threads, size=self.batch_size))

    def pixels(self, image: ImageSource) -> Pixels:
        """Returns ``image`` as the network takes it: uint8 (crop, crop, 3), RGB.

        Raises:
            ImageError: it cannot be read, or breaks a limit.
        """
        preprocess = self.artifact.preprocess
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
                raise ImageError(
                    f"pixels are {image.dtype} {list(image.shape)}: they must be uint8 "
                    "[height, width, 3], RGB"
                )
            return preprocess(Image.fromarray(image))
        if isinstance(image, Image.Image):
            try:
                return preprocess(ImageOps.exif_transpose(image))
            except (OSError, SyntaxError, ValueError) as error:  # it is read only now
                raise ImageError(f"cannot be read as an image ({first_line(error)})") from error
        data = image if isinstance(image, bytes) else read_file(Path(image), self.limits.max_bytes)
        check_size(data, self.limits.max_bytes)
        decoded = decode_image(
            data,
            max_pixels=self.limits.max_pixels,
            shorter=preprocess.shorter,
            truncated=self.limits.truncated,
        )
        return preprocess(decoded)

    def classify(self, pixels: Sequence[Pixels], top_k: int) -> list[Prediction | None]:
        """Returns the prediction of each image; None where the logits are not finite.

        Args:
            pixels: at most :attr:`batch_size` images, each uint8 (crop, crop, 3).
            top_k: how many classes ``top`` holds; at most all there are.

        Raises:
            UserError: the runtime fails.
        """
        if not pixels:
            return []
        batch = np.stack(pixels)
        try:
            with self._turn:
                logits = self._runtime(batch)
        except Exception as error:  # the exceptions of runtimes share no public base class
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
        scores = softmax(logits)
        indices = tuple(largest(scores, top_k).tolist())
        top = tuple((self.labels[index], float(scores[index])) for index in indices)
        (label, score), index = top[0], indices[0]
        return Prediction(label=label, index=index, score=score, top=top, indices=indices)


def read_file(path: Path, max_bytes: int) -> bytes:
    """Returns the bytes of an image file, read no further than its size is allowed.

    Raises:
        ImageError: it cannot be read, or is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError) as error:  # of a NUL in its name
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


def _sound(prediction: Prediction | None) -> Prediction:
    if prediction is None:
        raise ImageError(NOT_FINITE)
    return prediction


def pick(path: Path) -> tuple[Path, str | None]:
    """Returns the folder of an artifact, and the runtime that a benchmark picked for it, if any."""
    if saved := read_pick(path):
        return path / saved.artifact, saved.runtime
    if (saved := read_pick(path.parent)) and path.parent / saved.artifact == path:
        return path, saved.runtime
    return path, None
