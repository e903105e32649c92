"""What the command line says of a network that was trained elsewhere."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from core.preprocess import CropMode, Interpolation


@dataclass(frozen=True, kw_only=True, slots=True)
class Elsewhere:
    """Weights of your own, trained elsewhere: torchvision's, timm's, Lightning's, safetensors."""

    checkpoint: Path | None = None
    """File of weights for --model; nothing in it is executed."""
    onnx: Path | None = None
    """ONNX graph of a classifier, float images to logits or probabilities, to wrap instead; --model
    then is a name for it."""
    program: Path | None = None
    """Exported program of torch (.pt2) of a classifier, likewise; nothing in it is executed."""
    name: str | None = None
    """What the artifacts are filed under beside the network; left out: the file's name."""
    entry: str | None = None
    """Where in the file the weights stand, such as model_ema; left out: found out."""
    labels: str | None = None
    """Class names in the order of the logits: a text, JSON or CSV file, or imagenet."""
    size: int | None = None
    """Side of the images in pixels, also without --checkpoint; this and the next five are left out
    where they are known."""
    resize: int | None = None
    """Length in pixels that the shorter side is scaled to before the centre is cut out."""
    interpolation: Interpolation | None = None
    """How images are resampled."""
    crop_mode: CropMode | None = None
    """What is resized: the shorter side (center), both (squash) or the longer one (border)."""
    mean: tuple[float, ...] | None = None
    """Mean of the pixels in [0, 1] that was subtracted: one number, or R, G and B."""
    std: tuple[float, ...] | None = None
    """Standard deviation that they were divided by: one number, or R, G and B."""

    @property
    def file(self) -> Path | None:
        """Returns the file that holds the network."""
        return self.checkpoint or self.onnx or self.program

    @property
    def flags(self) -> tuple[str, ...]:
        """Returns the flags that say the same."""
        flags: list[str] = []
        for each in fields(self):
            value = getattr(self, each.name)
            if value is not None:
                values = value if isinstance(value, tuple) else (value,)
                flags += [f"--{each.name.replace('_', '-')}", *map(str, values)]
        return tuple(flags)
