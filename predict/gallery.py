"""An HTML page with a sample of a run's images, their predictions, and counts per class."""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from artifact.artifact import Artifact
from core.conditions import now
from core.errors import UserError
from core.files import write_whole
from core.image_types import decode_image
from predict.classifier import Limits, Prediction
from predict.pipeline import Row
from report.format import one_line, percent, plural
from report.section import Picture, Report, Section, Table
from report.thumbnails import SIDE, thumbnail

SIZE = 60  # images
_FAILED = 20  # most failures listed


@dataclass(order=True, frozen=True, slots=True)
class _Kept:
    order: int  # minus the digest of its path: the largest digest is the first to go
    number: int
    path: str = field(compare=False)
    prediction: Prediction = field(compare=False)
    jpeg: bytes = field(compare=False)


class Gallery:
    """A sample of images: those whose paths have the smallest digests, so it is reproducible.

    Args:
        limits: limits of accepted images.
        size: size of the sample.
    """

    def __init__(self, limits: Limits, size: int = SIZE) -> None:
        self._limits, self._size = limits, size
        self._kept: list[_Kept] = []
        self._classes: Counter[str] = Counter()
        self._failed: list[Row] = []
        self._images = self._failures = self._without = 0

    def offer(self, row: Row, load: Callable[[], bytes]) -> None:
        """Counts ``row``, and keeps a thumbnail if the image is in the sample.

        Args:
            row: result of the image.
            load: returns the bytes of its file; called for few images only.
        """
        self._images += 1
        if row.prediction is None:
            self._failures += 1
            if len(self._failed) < _FAILED:
                self._failed.append(row)
            return
        self._classes.update(row.prediction.labels)
        self._without += not row.prediction.labels
        digest = hashlib.blake2b(row.path.encode(), digest_size=8).digest()
        order = -int.from_bytes(digest)
        if len(self._kept) == self._size and order < self._kept[0].order:
            return
        try:
            image = decode_image(
                load(),
                max_pixels=self._limits.max_pixels,
                least=SIDE,
                truncated=self._limits.truncated,
            )
        except UserError:
            return
        kept = _Kept(order, self._images, row.path, row.prediction, thumbnail(image))
        heapq.heappush(self._kept, kept)
        if len(self._kept) > self._size:
            heapq.heappop(self._kept)

    def write(self, path: Path, artifact: Artifact, runtime: str) -> Path:
        """Writes the self-contained page atomically and returns ``path``.

        Args:
            path: path of the page.
            artifact: the artifact.
            runtime: name of its runtime.
        """
        from report.html import page

        return write_whole(path, page(self._report(path.stem, artifact, runtime)).encode())

    def _report(self, name: str, artifact: Artifact, runtime: str) -> Report:
        unsure_first = sorted(self._kept, key=lambda kept: kept.prediction.score)
        sample = Section(
            title="Some of them",
            sentences=(
                f"{plural(len(unsure_first), 'image')}, chosen by chance; those that the network "
                "is least sure of come first.",
            ),
            pictures=tuple(map(_picture, unsure_first)),
        )
        answered = self._images - self._failures
        none = f"{plural(self._without, 'image')} got no label." if self._without else ""
        classes = Section(
            title="Classes",
            sentences=(none,) if none else (),
            tables=(
                Table(
                    header=("Class", "Images", "Share"),
                    rows=tuple(
                        (one_line(label), f"{count:,}", percent(count / answered))
                        for label, count in self._classes.most_common()
                    ),
                    numeric=frozenset(("Images", "Share")),
                ),
            ),
        )
        failed = Section(
            title="Not classified",
            tables=(
                Table(
                    header=("Image", "Reason"),
                    rows=tuple(
                        (one_line(row.path), one_line(row.error or "")) for row in self._failed
                    ),
                ),
            ),
            sentences=(f"The first {len(self._failed)} of {self._failures:,}.",),
        )
        sections = [sample, classes] if answered else []
        return Report(
            name=name,
            title="Predictions",
            subtitle=f"{artifact.model} on {artifact.data}, {artifact.name} in {runtime}",
            summary=(
                f"{plural(self._images, 'image')}, of which {self._failures:,} could not be "
                "classified.",
            ),
            sections=(*sections, *([failed] if self._failed else [])),
            facts=(
                ("Artifact", str(artifact.path)),
                ("Runtime", runtime),
                ("Classes", f"{len(artifact.labels):,}"),
                ("When", now()),
            ),
            method=(
                "Each image is decoded, resized and cropped as a service would, and the scores are "
                f"the {_of_logits(artifact)} of the network's logits.",
                f"Shown are the {self._size} images whose paths have the smallest digests, so the "
                "same images are shown again of the same paths.",
            ),
        )


def _of_logits(artifact: Artifact) -> str:
    return "sigmoid, each by itself," if artifact.task == "multi" else "softmax"


def _picture(kept: _Kept) -> Picture:
    answers = tuple(f"{one_line(label)} {percent(score)}" for label, score in kept.prediction.top)
    return Picture(title=answers[0], jpeg=kept.jpeg, lines=(*answers[1:3], one_line(kept.path)))
