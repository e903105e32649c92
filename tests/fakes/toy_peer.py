"""A peer of the tests: it copies the graph it is given, and runs it with NumPy alone."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers.material import Material


def make(files: str, material: Material, folder: Path) -> None:
    """Copies the graph; ``broken`` fails as converters do, ``crash`` as native code does."""
    if files == "broken":
        raise RuntimeError("no such operator")
    if files == "crash":
        os._exit(3)
    if files == "absent":
        import a_package_that_nobody_has  # type: ignore[import-not-found]  # noqa: F401
    assert material.calibration.dtype == np.uint8
    shutil.copy(material.graph, folder / "copied.onnx")
    shutil.copy(material.backbone, folder / "backbone.onnx")


def require(setting: str) -> None:
    """Refuses one setting, as of a CPU that lacks something."""
    if setting == "needs more":
        raise RuntimeError("this CPU has no such arithmetic")


def load(setting: str, folder: Path) -> Any:
    """Returns the mean of each channel; ``wrong`` answers the opposite, ``slow`` waits."""
    assert (folder / "copied.onnx").is_file()

    def infer(pixels: Any) -> Any:
        if setting == "slow":
            until = time.process_time() + 0.01
            while time.process_time() < until:
                pass
        logits = pixels.mean(axis=(1, 2)).astype(np.float32)
        return -logits if setting == "wrong" else logits

    return infer
