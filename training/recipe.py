"""Everything that decides a training run."""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import arg

from core.errors import UserError
from core.preprocess import Interpolation, Preprocess, Truncated
from core.task import Task
from training.records import MONITORS_OF

CUSTOM = "custom"  # name of a recipe that is made in Python


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """All settings of a training run except network, data and machine."""

    epochs: int
    """Passes over the training images."""
    batch_size: int
    """Images per optimiser step, over all devices; a smaller last batch is dropped."""
    learning_rate: float
    """Peak learning rate, after warm-up."""
    accumulate: int = 1
    """Gradient accumulation: number of parts of a batch, to save memory."""

    weights: Literal["random", "imagenet", "run"] = "random"
    """Initial weights; the last layer is zero if the classes differ. run: those of the finished run
    of this network and data, for qat."""
    zero_gamma: bool = False
    """Start the last norm of every residual branch at zero."""
    bn_momentum: float | None = None
    """Momentum of batch norm's running statistics; None keeps the network's own."""
    dropout: float | None = None
    """Probability in all dropout layers of the network; None keeps the network's own."""

    freeze_epochs: int = 0
    """Fine-tuning: number of first epochs in which only the last layer learns; all of them for a
    linear probe."""
    unfreeze_every: int = 0
    """Fine-tuning: gradual unfreezing: after freeze_epochs the last stage learns, and a further one
    after each so many epochs, up to the first; 0: all at once."""
    keep_statistics: bool = False
    """Fine-tuning: batch norm keeps the statistics of the published weights, instead of those of
    the batch and of the new images."""
    layer_decay: float = 1.0
    """Fine-tuning: the learning rate of each stage (the layers between two changes of resolution)
    is so many times that of the next one; 1 for the same in all."""

    qat: bool = False
    """Quantization-aware fine-tuning: the int8 form of the weights learns, through its roundings,
    to answer as they do in float32. Recipes qat and qat_imagenet set all that it needs."""
    weight_bits: Literal[7, 8] = 7
    """QAT: bits of the weights: 7 for any CPU, 8 for those with VNNI and ARM; as --target of export
    has them."""

    optimizer: Literal["adam", "adamw", "rmsprop", "sgd"] = "adamw"
    """Optimiser; RMSprop and SGD use momentum 0.9."""
    rmsprop_epsilon: float = 0.001
    """RMSprop: what is added to the mean square of a gradient, by whose root it is divided; the
    larger, the more a step is one of SGD where gradients are small."""
    weight_decay: float = 0.01
    """Weight decay; AdamW's is decoupled, the others' is added to the gradient."""
    decay_vectors: bool = True
    """Whether biases and batch norm have weight decay too."""
    schedule: Literal["constant", "cosine", "exponential", "linear"] = "cosine"
    """Learning rate schedule after warm-up: to 0, or by decay_rate if exponential."""
    warmup: float = 0.05
    """Fraction of all steps in which the learning rate rises linearly to its peak."""
    decay_rate: float = 0.97
    """Exponential schedule: factor every decay_epochs."""
    decay_epochs: float = 2.4
    """Exponential schedule: epochs per factor."""
    clip: float | None = None
    """Gradient clipping: largest norm; None for no limit."""
    ema: float | None = None
    """Decay of the exponential moving average of the weights, which is validated and kept; None for
    none. With warm-up: at most (1 + n) / (10 + n) in step n."""

    label_smoothing: float = 0.1
    """Fraction of the target spread evenly over all classes."""
    mixup: float = 0.0
    """Alpha of mixup's Beta distribution; 0 for no mixup."""
    cutmix: float = 0.0
    """Alpha of cutmix, likewise; if both are set, each batch gets one of them at random."""
    class_weights: Literal["none", "balanced", "effective"] = "none"
    """Weight of each class in the loss: balanced: the inverse of its number of training images;
    effective: of its effective number, a weaker correction."""
    effective_beta: float = 0.999
    """Effective number of n images: (1 - beta^n) / (1 - beta); 0 weighs all classes alike."""
    focal_gamma: float = 0.0
    """Focal loss: exponent by which images that are classified well count less; 0 for none."""
    sampler: Literal["shuffled", "balanced"] = "shuffled"
    """Images of an epoch: shuffled: each once; balanced: as many of each class, so images of small
    classes are repeated, augmented anew, and some of large ones left for other epochs."""
    teacher: str | None = None
    """Teacher for distillation: a registry name (with ImageNet weights), or a run's folder."""
    temperature: float = 20.0
    """Distillation: temperature of both softmaxes."""

    resize: int = 256
    """Validation: length in pixels of the shorter side."""
    crop: int = 224
    """Side in pixels of the network's input."""
    train_crop: int | None = None
    """Training: side of the input; None for the same as crop."""
    interpolation: Interpolation = "bilinear"
    """Resampling filter."""
    truncated: Annotated[Truncated, arg(prefix_name=False)] = "refuse"
    """accept: also JPEGs that lack their end marker, or at most 32 rows and 1/16 of the image; in
    training, validation and export."""
    min_scale: float = 0.35
    """Training: smallest fraction of the image's area in a random crop; 1 for no random crop."""
    flip: bool = True
    """Training: mirror half of the images left to right."""
    pad: int = 0
    """Training: black border in pixels, before a random square is cropped."""
    shift: float = 0.0
    """Training: largest random shift, as a fraction of the side."""
    rotate: float = 0.0
    """Training: largest random rotation in degrees."""
    randaugment: int = 0
    """Training: magnitude, 0 to 30, of two random distortions; 0 for none."""

    stages: int = 1
    """Progressive learning: number of equal stages, from the start_ values to those above."""
    start_train_crop: int | None = None
    """Value in the first stage; None for the same in all."""
    start_randaugment: int | None = None
    """Likewise."""
    start_mixup: float | None = None
    """Likewise."""
    start_dropout: float | None = None
    """Likewise."""

    monitor: Literal["none", "top1", "macro_f1", "balanced_accuracy", "val_loss", "map"] = "none"
    """Held-out figure by which the best epoch is chosen, which is then kept; map: mean average
    precision, of several labels; none: top1 (map) with patience, and without it the last epoch is
    kept."""
    patience: int | None = None
    """Early stopping: stop after this many epochs without a better figure (monitor), and keep the
    weights of the best epoch; None to train to the end."""
    calibrate: bool = True
    """Temperature scaling after training: logits are divided by a number fitted on held-out images,
    so that of the answers with a score of 0.9 about 90 % are right. No answer changes."""
    answer_precision: float | None = None
    """Precision that answers shall have. Of one class: the score below which to abstain is chosen
    for it on held-out images; of several labels: their thresholds are, instead of for the best F1.
    None for no such score, and the best F1."""
    precision: Literal["auto", "bf16", "fp16", "fp32"] = "auto"
    """auto: bf16 on GPUs that have it, fp16 on other GPUs, fp32 on CPUs."""
    channels_last: bool = True
    """Whether to use the channels-last memory layout."""
    compile: bool = False
    """Whether to use torch.compile."""
    deterministic: bool = False
    """Whether to use only deterministic algorithms (on a CPU all are)."""
    seed: int = 0
    """Seed of the initial weights, the order of images and their augmentation."""
    workers: int = 0
    """Number of processes that decode images; 0 to decode in the training process."""

    def check(self) -> None:
        """Raises UserError if a field is invalid or fields contradict each other."""
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and (isinstance(value, str) or not low <= value <= high):
                limits = f"at least {low:g}" if high == _ANY else f"from {low:g} to {high:g}"
                raise UserError(f"{name} is {value!r}: it must be {limits}")
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
        if self.class_weights != "none" and self.sampler == "balanced":
            raise UserError(
                f"class_weights is {self.class_weights} and sampler is balanced: that corrects the "
                "same imbalance twice; use one of them"
            )
        if self.freeze_epochs > self.epochs:
            raise UserError(
                f"freeze_epochs is {self.freeze_epochs}: more than the {self.epochs} epochs"
            )
        for name in ("freeze_epochs", "unfreeze_every", "keep_statistics"):
            if getattr(self, name) and self.weights == "random":
                raise UserError(
                    f"{name} is {getattr(self, name)} and weights is random: that is for published "
                    "weights; use --recipe.weights imagenet, or another recipe"
                )
        self._check_qat()
        if self.stages > self.epochs:
            raise UserError(f"stages is {self.stages}: more than the {self.epochs} epochs")
        if self.crop > self.resize:
            raise UserError(
                f"crop is {self.crop} and resize is {self.resize}: crop must lie in 1..resize"
            )

    def for_task(self, task: Task) -> Recipe:
        """Returns the recipe for one class of an image, or for any number of labels.

        Raises:
            UserError: it has what makes no sense for that.
        """
        allowed = MONITORS_OF[task]
        if self.chosen_by and self.monitor == "none":
            return dataclasses.replace(self, monitor=allowed[0]).for_task(task)  # type: ignore[arg-type]
        if self.monitor not in ("none", *allowed):
            each = "one class" if task == "single" else "several labels"
            raise UserError(
                f"monitor is {self.monitor}, and an image has {each}: it must be one of none, "
                f"{', '.join(allowed)}"
            )
        if task == "multi" and self.sampler == "balanced":
            raise UserError(
                "sampler is balanced, and an image with several labels is of no one class: use "
                "--recipe.class-weights balanced"
            )
        if task == "multi" and self.qat:
            raise UserError(
                "qat is True: the int8 form learns the softmax of one class from float32, and an "
                "image has several labels; export calibrates int8 without training"
            )
        if task == "multi" and self.teacher:
            raise UserError(
                f"teacher is {self.teacher}: distillation is of the softmax of one class, and an "
                "image has several labels; leave it out"
            )
        return self

    def _check_qat(self) -> None:
        """Raises UserError if fields for quantization-aware fine-tuning contradict others."""
        if not self.qat:
            if self.weights == "run":
                raise UserError("weights is run: only --recipe-name qat starts from a run")
            return
        if self.weights == "random":
            raise UserError(
                "qat is True and weights is random: it is for trained weights; use --recipe-name "
                "qat for those of a run of yours, qat_imagenet for published ones"
            )
        own = {field.name: field.default for field in dataclasses.fields(self)}
        for name in _NOT_IN_QAT:
            if (value := getattr(self, name)) != own[name]:
                raise UserError(
                    f"qat is True and {name} is {value}: its network is an int8 graph without "
                    f"batch norm, taught by itself in float32; leave --recipe.{name} out"
                )
        if self.train_crop not in (None, self.crop) or self.stages > 1:
            raise UserError(
                f"qat is True, and images of training are of another size than {self.crop}, that "
                "of the int8 graph; leave train_crop and stages out"
            )
        if self.precision not in ("auto", "fp32"):
            raise UserError(
                f"qat is True and precision is {self.precision}: it would round otherwise than the "
                "int8 graph; use fp32"
            )

    @property
    def preprocess(self) -> Preprocess:
        """Returns the preprocessing for validation, calibration and serving."""
        return Preprocess(resize=self.resize, crop=self.crop, interpolation=self.interpolation)

    @property
    def chosen_by(self) -> str | None:
        """Returns the figure by which the kept epoch is chosen; None if the last one is kept."""
        if self.monitor != "none":
            return self.monitor
        return None if self.patience is None else "top1"

    @property
    def train_crops(self) -> set[int]:
        """Returns the input sides in pixels used in training, over all epochs."""
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


# Of what an int8 graph does not have: batch norm, dropout, stages of layers, a last layer apart.
_NOT_IN_QAT = (
    "zero_gamma",
    "bn_momentum",
    "dropout",
    "freeze_epochs",
    "keep_statistics",
    "layer_decay",
    "teacher",
)
_ANY = float("inf")
_RANGES: dict[str, tuple[float, float]] = {
    "epochs": (1, _ANY),
    "batch_size": (1, _ANY),
    "accumulate": (1, _ANY),
    "freeze_epochs": (0, _ANY),
    "unfreeze_every": (0, _ANY),
    "layer_decay": (0.001, 1),
    "bn_momentum": (0, 1),
    "dropout": (0, 1),
    "rmsprop_epsilon": (1e-12, _ANY),
    "weight_decay": (0, _ANY),
    "warmup": (0, 0.99),
    "decay_rate": (0, 1),
    "decay_epochs": (0.001, _ANY),
    "clip": (0, _ANY),
    "ema": (0, 1),
    "label_smoothing": (0, 1),
    "mixup": (0, _ANY),
    "cutmix": (0, _ANY),
    "effective_beta": (0, 0.999999),
    "focal_gamma": (0, _ANY),
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
    "answer_precision": (0.01, 1),
    "workers": (0, _ANY),
}
