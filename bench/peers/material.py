"""What every peer is given of a network: files that a converter of any environment can read.

It imports nothing of this project, as a converter may need an environment of its own.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

VERSIONS = "versions.json"  # of the packages that made the files beside it
_PIXELS, _NORMS = "calibration.npy", "normalisation.json"


@dataclass(frozen=True, slots=True)
class Material:
    """A folder with a network in the forms that converters take, and images to calibrate with.

    Attributes:
        folder: holds the files.
    """

    folder: Path

    @property
    def graph(self) -> Path:
        """Returns the ONNX file: uint8 ``pixels`` (1, H, W, C) to float32 ``logits`` (1, N)."""
        return self.folder / "network.onnx"

    @property
    def backbone(self) -> Path:
        """Returns the ONNX file of the network behind its normalisation.

        It maps normalised float32 ``images`` (1, C, H, W) to ``logits``.
        """
        return self.folder / "backbone.onnx"

    @property
    def program(self) -> Path:
        """Returns the file of ``torch.export.save``, with the ends of :attr:`graph`."""
        return self.folder / "network.pt2"

    @property
    def calibration(self) -> npt.NDArray[np.uint8]:
        """Returns uint8 (n, H, W, C): the images that our own int8 is calibrated with."""
        pixels: npt.NDArray[np.uint8] = np.load(self.folder / _PIXELS)
        return pixels

    @property
    def normalisation(self) -> tuple[list[float], list[float]]:
        """Returns mean and factor of each channel: an image is (pixels - mean) * factor."""
        mean, factor = json.loads((self.folder / _NORMS).read_text())
        return mean, factor

    def write(self, pixels: npt.NDArray[np.uint8], scale: Any, shift: Any) -> None:
        """Writes the images, and the normalisation pixels * scale + shift of each channel."""
        np.save(self.folder / _PIXELS, pixels)
        mean = [-float(b) / float(a) for a, b in zip(scale, shift, strict=True)]
        (self.folder / _NORMS).write_text(json.dumps([mean, [float(a) for a in scale]]))
