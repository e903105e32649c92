"""Everything that decides a training run."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from core.errors import UserError
from core.preprocess import Interpolation, Preprocess, Truncated


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """A training run, save for the network, the data and the machine."""

    epochs: int
    """Passes over the training images."""
    batch_size: int
    """Images per step of the optimiser, over all devices; a smaller last batch is dropped."""
    learning_rate: float
    """Its peak, after warm-up."""
    accumulate: int = 1
    """Parts a batch is computed in, one after the other, to need less memory."""

    weights: Literal["random", "imagenet"] = "random"
    """What the network starts from; the head is random if the classes differ."""
    zero_gamma: bool = False
    """Start the last norm of every residual branch at zero."""
    bn_momentum: float | None = None
    """Share of a batch in the running statistics of batch norm; None keeps the network's own."""
    dropout: float | None = None
    """Probability in all dropout layers of the network; None keeps the network's own."""

    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = "adamw"
    """RMSprop and SGD with momentum 0.9."""
    weight_decay: float = 0.01
    """AdamW's is decoupled; the others' is added to the gradient."""
    decay_vectors: bool = True
    """Weight decay on biases and batch norm, too."""
    schedule: Literal["constant", "cosine", "exponential", "linear"] = "cosine"
    """How the learning rate falls after warm-up: to 0, or by decay_rate."""
    warmup: float = 0.05
    """Fraction of all steps in which the learning rate rises linearly to its peak."""
    decay_rate: float = 0.97
    """Exponential: the factor every decay_epochs."""
    decay_epochs: float = 2.4
    """Exponential: epochs from one factor to the next."""
    clip: float | None = None
    """Largest norm of the gradient; None for no limit."""
    ema: float | None = None
    """Decay of the running average of the weights, which is validated and kept; None for none.
    Less at first: (1 + n) / (10 + n) in step n."""

    label_smoothing: float = 0.1
    """Share of the target spread evenly over all classes."""
    mixup: float = 0.0
    """Alpha of mixup: of the Beta distribution that blends two images; 0 for none."""
    cutmix: float = 0.0
    """Alpha of cutmix, likewise; if both are set, each batch gets one of them at random."""
    teacher: str | None = None
    """Network to distil from: a registry name (its ImageNet weights), or a run's folder."""
    temperature: float = 20.0
    """Distillation: softens both sides."""

    resize: int = 256
    """Validation: length in pixels of the shorter side."""
    crop: int = 224
    """Side in pixels of the square the network sees."""
    train_crop: int | None = None
    """Training: another side than crop; None for the same."""
    interpolation: Interpolation = "bilinear"
    """How images are resampled."""
    truncated: Annotated[Truncated, arg(prefix_name=False)] = "refuse"
    """JPEGs that lack their end: accept takes those that lack an end marker, or at most their last
    32 rows and a sixteenth of all. Holds for training, validation and export alike."""
    min_scale: float = 0.35
    """Training: smallest share of the image's area a random crop keeps; 1 keeps the whole."""
    flip: bool = True
    """Training: mirror half of the images left to right."""
    pad: int = 0
    """Training: pixels of black around the image, of which a random square is cut."""
    shift: float = 0.0
    """Training: largest random shift, as a share of the side."""
    rotate: float = 0.0
    """Training: largest random rotation in degrees."""
    randaugment: int = 0
    """Training: magnitude, 0 to 30, of two random distortions; 0 for none."""

    stages: int = 1
    """Progressive learning: equal parts of the run, from the start_ values up to those above."""
    start_train_crop: int | None = None
    """That of the first stage; None: the same in all."""
    start_randaugment: int | None = None
    """Likewise."""
    start_mixup: float | None = None
    """Likewise."""
    start_dropout: float | None = None
    """Likewise."""

    patience: int | None = None
    """Stop after this many epochs without a better held-out top-1, and keep the best epoch's
    weights; None runs to the end and keeps the last."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """auto: bf16 on GPUs that have it, fp16 on other GPUs, fp32 on CPUs."""
    channels_last: bool = True
    """Memory layout of the weights."""
    compile: bool = False
    """Train through torch.compile."""
    deterministic: bool = False
    """Only algorithms that give the same result every time (on a CPU all do)."""
    seed: int = 0
    """Of the initial weights, the order of images and their augmentation."""
    workers: int = 0
    """Processes that decode images; 0 decodes in the training process."""

    def check(self) -> None:
        """Raises UserError if no run can follow this recipe."""
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                limits = f"at least {low:g}" if high == _ANY else f"from {low:g} to {high:g}"
                raise UserError(f"{name} is {value}: it must be {limits}")
        for name in ("learning_rate", "min_scale", "temperature"):
            if not getattr(self, name) > 0:
                raise UserError(f"{name} is {getattr(self, name)}: it must be above 0")
        for name, kind in typing.get_type_hints(type(self)).items():
            allowed = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
            if allowed and getattr(self, name) not in allowed:
                raise UserError(
                    f"{name} is {getattr(self, name)!r}: it must be one of {', '.join(allowed)}"
                )
        if self.batch_size % self.accumulate:
            raise UserError(
                f"accumulate is {self.accumulate}: it must divide batch_size, {self.batch_size}"
            )
        if self.stages > self.epochs:
            raise UserError(f"stages is {self.stages}: more than the {self.epochs} epochs")
        if self.crop > self.resize:
            raise UserError(
                f"crop is {self.crop} and resize is {self.resize}: crop must lie in 1..resize"
            )

    @property
    def preprocess(self) -> Preprocess:
        """Returns what validation, calibration and serving do to an image."""
        return Preprocess(resize=self.resize, crop=self.crop, interpolation=self.interpolation)

    @property
    def train_crops(self) -> set[int]:
        """Returns the sides in pixels of the squares that training sees, over all epochs."""
        return {self.at(epoch).train_crop or self.crop for epoch in range(self.epochs)}

    def at(self, epoch: int) -> Recipe:
        """Returns the recipe of one epoch, counted from 0: in stage i of n the values that have a
        start lie i / (n - 1) of the way from it (EfficientNetV2, arXiv 2104.00298, Algorithm 1)."""
        if self.stages == 1:
            return self
        share = min(epoch * self.stages // self.epochs, self.stages - 1) / (self.stages - 1)
        values: dict[str, float] = {}
        for name in ("train_crop", "randaugment", "mixup", "dropout"):
            start, end = getattr(self, f"start_{name}"), getattr(self, name)
            if start is not None and end is not None:
                value = start + share * (end - start)
                values[name] = round(value) if isinstance(end, int) else value
        return dataclasses.replace(self, **values)  # type: ignore[arg-type]


_ANY = float("inf")
_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, _ANY),
    "batch_size": (1, _ANY),
    "accumulate": (1, _ANY),
    "bn_momentum": (0, 1),
    "dropout": (0, 1),
    "weight_decay": (0, _ANY),
    "warmup": (0, 0.99),
    "decay_rate": (0, 1),
    "decay_epochs": (0.001, _ANY),
    "clip": (0, _ANY),
    "ema": (0, 1),
    "label_smoothing": (0, 1),
    "mixup": (0, _ANY),
    "cutmix": (0, _ANY),
    "crop": (1, _ANY),
    "train_crop": (1, _ANY),
    "min_scale": (0, 1),
    "pad": (0, _ANY),
    "shift": (0, 1),
    "rotate": (0, 180),
    "randaugment": (0, 30),
    "stages": (1, _ANY),
    "start_train_crop": (1, _ANY),
    "start_randaugment": (0, 30),
    "start_mixup": (0, _ANY),
    "start_dropout": (0, 1),
    "patience": (1, _ANY),
    "workers": (0, _ANY),
}
