"""Everything that decides a training run. A recipe is a function that returns a whole one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from models.cores import usable_cores
from models.errors import UserError
from models.preprocess import Interpolation, Preprocess


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A training run, save for the network and the data."""

    epochs: int
    """Passes over the training images."""
    batch_size: int
    """Images per step; the last, smaller batch of an epoch is dropped."""
    learning_rate: float
    """Its peak, between warm-up and cosine decay to 0."""
    warmup: float = 0.25
    """Fraction of all steps in which the learning rate rises linearly to its peak."""
    weight_decay: float = 0.01
    """AdamW's, on all parameters."""
    label_smoothing: float = 0.1
    """Share of the target spread evenly over all classes."""
    bn_momentum: float | None = None
    """Momentum of the running statistics of batch norm; None keeps the network's own."""

    resize: int = 256
    """Validation: length in pixels of the shorter side."""
    crop: int = 224
    """Side in pixels of the square the network sees."""
    interpolation: Interpolation = "bilinear"
    """How images are resampled."""
    min_scale: float = 0.35
    """Training: smallest share of the image's area a random crop keeps; 1 keeps the whole."""
    flip: bool = True
    """Training: mirror half of the images left to right."""
    shift: float = 0.0
    """Training: largest random shift, as a share of the side."""
    rotate: float = 0.0
    """Training: largest random rotation in degrees."""

    seed: int = 0
    """Of the initial weights, the order of images and their augmentation."""
    workers: int = 0
    """Processes that decode images; 0 decodes in the training process."""

    def check(self) -> None:
        """Raises UserError if no run can follow this recipe."""
        for name in ("epochs", "batch_size", "crop"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: it must be at least 1")
        if not self.learning_rate > 0:
            raise UserError(f"learning_rate is {self.learning_rate}: it must be above 0")
        if not 0 < self.min_scale <= 1:
            raise UserError(f"min_scale is {self.min_scale}: it must lie above 0 and up to 1")
        if not 0 <= self.warmup < 1:
            raise UserError(f"warmup is {self.warmup}: it must lie in 0..1, below 1")
        _ = self.preprocess  # checks resize, crop and interpolation

    @property
    def preprocess(self) -> Preprocess:
        """Returns what validation, calibration and serving do to an image."""
        return Preprocess(resize=self.resize, crop=self.crop, interpolation=self.interpolation)


def digits() -> Recipe:
    """Returns the recipe for scikit-learn's 8x8 digits, enlarged to 64x64.

    make train MODEL=mobilenet_v3 DATA=digits

    Batch norm's own momentum of 0.01 would need more steps than this short run has.
    """
    return Recipe(
        epochs=6,
        batch_size=64,
        learning_rate=3e-3,
        bn_momentum=0.1,
        resize=64,
        crop=64,
        min_scale=1.0,
        flip=False,
        shift=0.06,
        rotate=8.0,
    )


def scratch() -> Recipe:
    """Returns a plain recipe for a folder of photos, from random weights.

    make train MODEL=mobilenet_v3 DATA=path/to/folder

    Nobody measured it yet on a public data set.
    """
    return Recipe(
        epochs=90,
        batch_size=64,
        learning_rate=2e-3,
        warmup=0.05,
        workers=min(8, usable_cores()),
    )


RECIPES: dict[str, Callable[[], Recipe]] = {"digits": digits, "scratch": scratch}


def default_recipe(data: str) -> str:
    """Returns the name of the recipe used for ``data`` unless another is asked for."""
    return data if data in RECIPES else "scratch"
