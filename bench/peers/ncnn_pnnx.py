"""ncnn, converted by pnnx.

Source: "use ncnn with PyTorch or ONNX" of its documentation: pixels by ``Mat.from_pixels`` and
``substract_mean_normalize``; by default a net keeps and computes in float16 where the CPU can.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers.material import Material


def make(files: str, material: Material, folder: Path) -> None:
    """Writes .param and .bin files to ``folder``."""
    import pnnx

    shutil.copy(material.backbone, folder / "net.onnx")
    line = [pnnx.EXEC_PATH, "net.onnx", "fp16=0"]
    subprocess.run(line, cwd=folder, check=True, capture_output=True)
    np.save(folder / "normalisation.npy", material.normalisation)


def load(setting: str, folder: Path) -> Any:
    """Returns a function of uint8 pixels (1, H, W, 3) to float32 logits (1, N)."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = 1
    if setting == "fp32":
        net.opt.use_fp16_packed = net.opt.use_fp16_storage = net.opt.use_fp16_arithmetic = False
    net.opt.use_bf16_storage = setting == "bf16"
    if net.load_param(str(folder / "net.ncnn.param")) or net.load_model(
        str(folder / "net.ncnn.bin")
    ):
        raise RuntimeError("it cannot read what pnnx wrote")
    mean, factor = np.load(folder / "normalisation.npy").tolist()

    def infer(pixels: Any) -> Any:
        _, height, width, _ = pixels.shape
        image = ncnn.Mat.from_pixels(pixels[0], ncnn.Mat.PixelType.PIXEL_RGB, width, height)
        image.substract_mean_normalize(mean, factor)
        extractor = net.create_extractor()
        extractor.input("in0", image)
        _, logits = extractor.extract("out0")
        return np.array(logits, dtype=np.float32)[None]

    return infer
