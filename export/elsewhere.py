"""Command-line options for a network that was trained by other software."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from core.errors import UserError
from core.image_size import size_text
from core.preprocess import CHANNELS, CropMode, Interpolation
from core.size_flag import SizeFlag
from export.class_names import IMAGENET, class_names


@dataclass(frozen=True, kw_only=True, slots=True)
class Elsewhere:
    """Weights trained by other software: torchvision, timm, Lightning, safetensors."""

    checkpoint: Path | None = None
    """File of weights for --model, or hf://OWNER/REPO[/FILE]; nothing in it is executed."""
    onnx: Path | None = None
    """Instead of --checkpoint: ONNX graph of a classifier, from float images to logits or
    probabilities; --model is then a name for it."""
    program: Path | None = None
    """Exported program of torch (.pt2) of a classifier, likewise; nothing in it is executed."""
    name: str | None = None
    """Second part of the artifacts' folder name, <model>-<name>; default: the file's name."""
    entry: str | None = None
    """Location of the weights in the file, such as model_ema; default: found by searching."""
    labels: str | None = None
    """Class names in the order of the logits: a text, JSON or CSV file, or imagenet."""
    multi_label: bool = False
    """An image has any number of --labels, each with a score of its own, the sigmoid of its logit;
    not needed where the graph or the program ends in a Sigmoid."""
    image_labels: str | None = None
    """CSV file with the class, or the labels, of each image of --data, as train --labels takes it;
    of several labels it gives accuracy and a threshold for each."""
    image_labels_columns: tuple[str, ...] = ()
    """Its columns of the file and of labels, as train --labels-columns takes them."""
    size: SizeFlag = None
    """Size of the images in pixels, also without --checkpoint: a side, or HEIGHTxWIDTH; this and
    most of the next options are needed only where the file or its publisher does not tell."""
    resize: SizeFlag = None
    """Length in pixels to which the shorter side is scaled before the centre is cropped, or
    HEIGHTxWIDTH, which the scaled image covers."""
    interpolation: Interpolation | None = None
    """Resampling filter."""
    channels: int | None = None
    """Channels of the images, also without --checkpoint: 1 grey, 2 grey and alpha, 3 RGB, 4 RGBA;
    default: as in the file, or RGB. Weights for RGB are adapted as timm does it."""
    crop_mode: CropMode | None = None
    """Which side is resized: the shorter (center), both (squash) or the longer (border)."""
    mean: tuple[float, ...] | None = None
    """Mean that is subtracted from pixels in [0, 1]: one number, or one a channel."""
    std: tuple[float, ...] | None = None
    """Standard deviation that they are divided by: one number, or one a channel."""

    @property
    def file(self) -> Path | None:
        """Returns the file of weights or the graph; None if neither is given."""
        return self.checkpoint or self.onnx or self.program

    def check(self) -> None:
        """Checks what needs neither torch nor the file, so that a mistake is told at once.

        Raises:
            UserError: channels, mean or standard deviation out of range, or no file of labels.
        """
        if self.channels not in (None, 1, 2, 3, 4):
            raise UserError(f"--channels {self.channels}: {CHANNELS}")
        for name, values in (("mean", self.mean or ()), ("std", self.std or ())):
            low, high = min(values, default=1), max(values, default=1)
            if not (low >= 0 and high <= 1) or (name == "std" and low == 0):
                least = "be above 0 and at most 1" if name == "std" else "be from 0 to 1"
                remedy = "; divide by 255 what is of pixels in 0..255" if high > 1 else ""
                given = " ".join(f"{each:.4g}" for each in values)
                raise UserError(
                    f"--{name} {given}: each must {least}, for pixels in [0, 1]{remedy}"
                )
        if self.labels not in (None, IMAGENET):
            class_names(self.labels)

    @property
    def flags(self) -> tuple[str, ...]:
        """Returns the given options as command-line flags."""
        flags: list[str] = []
        for each in fields(self):
            value = getattr(self, each.name)
            if value in (None, False, ()):
                continue
            flags.append(f"--{each.name.replace('_', '-')}")
            if each.name in ("size", "resize"):
                value = size_text(value)
            if value is not True:
                flags += map(str, value if isinstance(value, tuple) else (value,))
        return tuple(flags)
