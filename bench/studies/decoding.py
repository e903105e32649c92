"""Effects of shrinking large images before resampling: ``python -m bench study decoding``.

Each gap (:data:`core.preprocess.GAP` is the one in use) is compared with resampling all pixels, in
CPU time on images of common sizes, and in the predictions of a network with ImageNet weights.
"""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import PIL
import torch
from PIL import Image

from bench.experiment import this_machine, write_page
from bench.load.plan import read_images
from bench.measure.timing import Call, Plan, measure
from core.image_size import sides
from core.preprocess import GAP, Preprocess, decode
from export.network import Network, load_network
from report.format import ms, percent
from report.section import Section, Table
from training.data import sample_photos

NETWORK = "efficientnet_lite0"
GAPS = (1.0, 1.5, 2.0, 3.0)
TIMED = ((500, 375, "JPEG"), (1024, 768, "JPEG"), (1920, 1080, "JPEG"), (1920, 1080, "PNG"))
PHOTOS, QUALITIES = 400, (75, 90, 95)
LARGEST = 4.0  # largest enlargement of a photo
LIMIT = 0.005  # largest fraction of photos whose top-1 class may change
SECONDS = 0.5

Gap = float | None  # None: all pixels are resampled
MOVED = "one pixel off"  # instead of a gap, for comparison: the image is shifted by one pixel


class Change(NamedTuple):
    """The effect of a gap on one photo, compared with resampling all pixels.

    Attributes:
        mean: mean absolute difference of pixel values, of 255.
        most: largest absolute difference of pixel values.
        score: absolute difference of the score of the class that was top-1.
        other: whether the top-1 class changed.
        points: expected change of top-1 in percentage points, if the scores from all pixels are
            taken as probabilities: the score of the new top-1 class minus that of the old one.
    """

    mean: float
    most: int
    score: float
    other: bool
    points: float


def run(name: str, out: Path, *, images: Path | None = None, seconds: float = SECONDS) -> Path:
    """Runs the study (:func:`decoding_section`), writes its page and returns the page's path."""
    return write_page(decoding_section(images, seconds=seconds), out / f"study-{name}.md")


def decoding_section(images: Path | None, *, seconds: float = SECONDS) -> Section:
    """Measures the time that each gap saves and its effect on predictions.

    Args:
        images: an image file or a folder of them; None for :func:`shipped_photos`.
        seconds: least total CPU time of the samples of each stage of each row.
    """
    network, machine = load_network(NETWORK, None, "imagenet"), this_machine()
    preprocess = network.preprocess
    changes = changes_of(read_images(images) if images else shipped_photos(PHOTOS), network)
    count, others = len(changes[GAP]), sum(change.other for change in changes[GAP])
    verdict = "within" if others <= LIMIT * count else "above"
    moved = sum(change.other for change in changes[MOVED])
    points = float(np.mean([change.points for change in changes[GAP]]))
    return Section(
        title="Shrinking large images before they are resampled",
        sentences=(
            f"With the gap in use, {GAP:g}, {others} of {count} photos get another top-1 answer "
            f"than from all pixels: {percent(others / count, decimals=2)}, {verdict} the limit of "
            f"{percent(LIMIT)}.",
            f"All pixels, but the photo moved by one of them, give {moved} of {count} another one: "
            f"{percent(moved / count, decimals=2)}. As far as the network's own scores are right, "
            f"the gap changes its top-1 by {points:+.2f} points.",
        ),
        tables=(_times(preprocess, seconds), _answers(changes)),
        notes=(
            f"Photos: {images or 'crops of those in scikit-learn and scikit-image, enlarged'}. "
            f"Network: {NETWORK}, ImageNet weights, torch; resize {preprocess.resize}, crop "
            f"{preprocess.crop}, {preprocess.interpolation}.",
            f"Times: p50 of processor time, interleaved; {machine.cpu}, Pillow {PIL.__version__}.",
            "Differences: of the photos that are changed, the mean; max: of any pixel. Points: the "
            "score, from all pixels, of the class that is best now, less that of the one that was "
            "best; of all photos, the mean.",
        ),
    )


def shipped_photos(count: int) -> Iterator[bytes]:
    """Yields JPEG files: crops of real photos, enlarged by up to :data:`LARGEST`."""
    random = np.random.default_rng(0)
    for photo in sample_photos(count):
        side = round(photo.width * random.uniform(1, LARGEST))
        large = photo.resize((side, side), Image.Resampling.BICUBIC)
        yield encode(large, "JPEG", quality=int(random.choice(QUALITIES)))


def encode(image: Image.Image, format: str, **options: int) -> bytes:
    """Encodes ``image`` and returns the bytes of the file."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def changes_of(photos: Iterable[bytes], network: Network) -> dict[float | str, list[Change]]:
    """Returns the changes of each photo for each gap, and for :data:`MOVED`."""
    preprocess = network.preprocess
    changes: dict[float | str, list[Change]] = {name: [] for name in (*GAPS, MOVED)}
    for data in photos:
        images = {gap: _decode(data, preprocess, gap)() for gap in (None, *GAPS)}
        whole = images[None]
        moved = whole.crop((1, 1, whole.width, whole.height))
        pixels = np.stack(
            [
                *(preprocess(image, gap=gap) for gap, image in images.items()),
                preprocess(moved, gap=None),
            ]
        )
        with torch.inference_mode():
            scores = network.module(torch.from_numpy(pixels)).softmax(dim=1).numpy()
        best = scores[0].argmax()
        for name, mine, row in zip(changes, pixels[1:], scores[1:], strict=True):
            by, now = np.abs(mine.astype(int) - pixels[0]), row.argmax()
            changes[name].append(
                Change(
                    mean=float(by.mean()),
                    most=int(by.max()),
                    score=float(abs(row[best] - scores[0, best])),
                    other=bool(now != best),
                    points=100 * float(scores[0, now] - scores[0, best]),
                )
            )
    return changes


def _decode(data: bytes, preprocess: Preprocess, gap: Gap) -> partial[Image.Image]:
    height, width = sides(preprocess.resize)
    least = None if gap is None else (math.ceil(gap * height), math.ceil(gap * width))
    return partial(decode, data, least=least)


def _answers(changes: dict[float | str, list[Change]]) -> Table:
    header = (
        *("gap", "changed", "mean difference", "max", "score"),
        *("other top-1", "of all", "points"),
    )
    rows = []
    for gap, all_photos in changes.items():
        shrunk = [change for change in all_photos if change.most]
        others = sum(change.other for change in shrunk)
        share = percent(others / len(all_photos), decimals=2)
        cells = ["-"] * 3
        if shrunk:
            mean, most, score, *_ = zip(*shrunk, strict=True)
            cells = [f"{np.mean(mean):.2f}", str(max(most)), f"{np.mean(score):.4f}"]
        points = f"{np.mean([change.points for change in all_photos]):+.2f}"
        label = gap if isinstance(gap, str) else f"{gap:g}"
        count = f"{len(shrunk)} of {len(all_photos)}"
        rows.append((label, count, *cells, str(others), share, points))
    return Table(header=header, rows=tuple(rows), numeric=frozenset(header))


def _times(preprocess: Preprocess, seconds: float) -> Table:
    (photo,) = sample_photos(1)
    calls: dict[tuple[str, Gap, str], Call] = {}
    for width, height, format in TIMED:
        data, name = encode(photo.resize((width, height)), format), f"{width}x{height} {format}"
        for gap in (None, *GAPS):
            read = calls[name, gap, "decode"] = _decode(data, preprocess, gap)
            calls[name, gap, "resize"] = partial(preprocess, read(), gap=gap)
    plan = Plan(count=20, seconds=seconds, limit=max(seconds, 4.0))
    found = measure(calls, plan, clock=time.process_time)
    rows = []
    for name, gap in dict.fromkeys((name, gap) for name, gap, _ in calls):
        both = [found[name, gap, stage].p50 for stage in ("decode", "resize")]
        plain = sum(found[name, None, stage].p50 for stage in ("decode", "resize"))
        label = "all pixels" if gap is None else f"{gap:g}"
        ratio = f"{sum(both) / plain:.2f}" if plain else "-"  # a clock can be too coarse
        rows.append((name, label, *map(ms, both), ms(sum(both)), ratio))
    header = ("image", "gap", "decode ms", "resize ms", "both ms", "x all pixels")
    return Table(header=header, rows=tuple(rows), numeric=frozenset(header[1:]))
