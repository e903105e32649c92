"""The plan of a load measurement, and the images that are sent."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from bench.measure.spread import FEWEST
from core.errors import UserError

Form = Literal["raw", "multipart"]
Arrivals = Literal["fixed", "poisson"]
BURST = 32  # connections
SIZES = ((500, 375), (1920, 1080))  # of a typical ImageNet photo, and of a Full HD frame
CROPS = 4  # number of crops of each photo
_QUALITY = 90


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadPlan:
    """How much to measure.

    Attributes:
        rounds: number of turns of each closed loop, and of the in-process limit.
        seconds: duration of such a turn.
        connections: numbers of connections of the closed loops.
        forms: how images are sent.
        open_rounds: number of turns of each open loop.
        open_seconds: duration of such a turn.
        shares: rates of the open loops, as fractions of the measured throughput.
        arrivals: how requests of the open loops are distributed in time.
        lone_seconds: duration each of the lone client before the burst, the burst, and the lone
            client after it.
        seed: random seed of the order of the turns, and of random arrivals.
    """

    rounds: int = 5
    seconds: float = 0.8
    connections: tuple[int, ...] = (1, 8, 32)
    forms: tuple[Form, ...] = ("raw", "multipart")
    open_rounds: int = 5
    open_seconds: float = 1.5
    shares: tuple[float, ...] = (0.5, 0.7, 0.9)
    arrivals: tuple[Arrivals, ...] = ("fixed", "poisson")
    lone_seconds: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        rounds = min(self.rounds, self.open_rounds)
        if rounds < FEWEST or min(self.seconds, self.open_seconds, self.lone_seconds) <= 0:
            raise UserError(
                f"rounds are {self.rounds}, open_rounds {self.open_rounds}, seconds "
                f"{self.seconds:g}, open_seconds {self.open_seconds:g}, lone_seconds "
                f"{self.lone_seconds:g}: at least {FEWEST} rounds and more than 0 s are needed"
            )

    def count(self, images: int) -> int:
        """Returns the total number of turns for ``images`` sets of images."""
        inside, closed = images, images * len(self.forms) * len(self.connections)
        opened = len(self.arrivals) * len(self.shares)
        return 3 + self.rounds * (inside + closed) + self.open_rounds * opened


QUICK = LoadPlan(
    rounds=3,
    seconds=0.4,
    forms=("raw",),
    open_rounds=3,
    open_seconds=0.5,
    arrivals=("fixed",),
    lone_seconds=1.0,
)


def read_images(path: Path) -> list[bytes]:
    """Returns the bytes of an image file, or of every file in a folder, sorted by name."""
    files = sorted(p for p in path.iterdir() if p.is_file()) if path.is_dir() else [path]
    if not files or not all(file.is_file() for file in files):
        raise UserError(f"{path}: no image there; give a file or a folder of images")
    return [file.read_bytes() for file in files]


def photos(width: int, height: int) -> list[bytes]:
    """Returns JPEG files of this size, quality 90: random crops of scikit-learn's two photos.

    A crop has 0.75 times the largest size that fits the photo (640x427), and is then resized.
    """
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    files = []
    for pixels in load_sample_images().images:
        photo = Image.fromarray(pixels)
        scale = 0.75 * min(photo.width / width, photo.height / height)
        for _ in range(CROPS):
            left = rng.uniform(0, photo.width - scale * width)
            top = rng.uniform(0, photo.height - scale * height)
            box = (left, top, left + scale * width, top + scale * height)
            file = io.BytesIO()
            crop = photo.resize((width, height), Image.Resampling.BICUBIC, box=box)
            crop.save(file, "JPEG", quality=_QUALITY)
            files.append(file.getvalue())
    return files
