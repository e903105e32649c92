"""MNN, by its converter and its tool for offline quantization.

Source: "Model conversion", "Offline quantization" and "Session API" of its documentation:
``mnnconvert``, then ``mnnquant`` with its defaults; or 8-bit weights, which a session with low
memory computes with.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from bench.peers.material import Material

_FILE = "model.mnn"


def make(files: str, material: Material, folder: Path) -> None:
    """Writes the float32 model, one with 8-bit weights, or one in int8 to ``folder``."""
    importlib.import_module("MNN")  # loads what the next one needs
    tools = importlib.import_module("_tools")  # what mnnconvert and mnnquant call

    made = folder / _FILE
    line = ["mnnconvert", "-f", "ONNX", "--modelFile", str(material.backbone)]
    line += ["--MNNModel", str(made), "--bizCode", "MNN"]
    tools.mnnconvert(line + (["--weightQuantBits", "8"] if files == "int8-weights" else []))
    np.save(folder / "normalisation.npy", material.normalisation)
    if files == "int8":
        plain = made.rename(folder / "float.mnn")
        tools.mnnquant(str(plain), str(made), str(_configuration(material, folder)))


def _configuration(material: Material, folder: Path) -> Path:
    """Writes the images and the settings of mnnquant, and returns the path of the latter."""
    from PIL import Image

    pixels = material.calibration
    images = folder / "images"
    images.mkdir()
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(images / f"{number}.png")
    mean, factor = material.normalisation
    settings = {
        "format": "RGB",
        "mean": mean,
        "normal": factor,
        "width": pixels.shape[2],
        "height": pixels.shape[1],
        "path": f"{images}/",
        "used_image_num": len(pixels),
        "feature_quantize_method": "KL",
        "weight_quantize_method": "MAX_ABS",
    }
    file = folder / "settings.json"
    file.write_text(json.dumps(settings))
    return file


def load(setting: str, folder: Path) -> Any:
    """Returns a function of uint8 pixels (1, H, W, 3) to float32 logits (1, N)."""
    import MNN

    mean, factor = np.load(folder / "normalisation.npy").tolist()
    net = MNN.Interpreter(str(folder / _FILE))
    memory = "low" if setting == "int8 weights" else "normal"
    session = net.createSession(
        {"backend": "CPU", "numThread": 1, "precision": "high", "memory": memory}
    )
    image = net.getSessionInput(session)
    convert = MNN.CVImageProcess(
        {
            "filterType": MNN.CV_Filter_BILINEAL,
            "sourceFormat": MNN.CV_ImageFormat_RGB,
            "destFormat": MNN.CV_ImageFormat_RGB,
            "mean": (*mean, 0.0),
            "normal": (*factor, 1.0),
        }
    ).convert
    output = net.getSessionOutput(session)
    shape = output.getShape()
    host = np.empty(shape, np.float32)
    logits = MNN.Tensor(shape, MNN.Halide_Type_Float, host, MNN.Tensor_DimensionType_Caffe)

    def infer(pixels: Any) -> Any:
        _, height, width, _ = pixels.shape
        convert(pixels[0], width, height, 0, image)
        net.runSession(session)
        output.copyToHostTensor(logits)
        return np.array(logits.getNumpyData(), np.float32)

    return infer
