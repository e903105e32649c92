"""LiteRT, converted by LiteRT Torch and quantized by LiteRT Quantizer.

Source: the documentation of both: ``litert_torch.convert``, then the recipe of static quantization
with 8-bit weights and activations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.peers.material import Material

_FILE = "model.tflite"


def make(files: str, material: Material, folder: Path) -> None:
    """Writes the float32 model, or the one in int8 to ``folder``.

    The latter is made of the former, which is in the folder beside it.
    """
    if files == "fp32":
        import litert_torch
        import torch

        network = torch.export.load(material.program).module()
        image = torch.from_numpy(material.calibration[:1])
        litert_torch.convert(network, (image,)).export(str(folder / _FILE))
        return
    from litert_quantizer import quantizer, recipe

    plain = folder.parent / "fp32" / _FILE
    name, key = _signature(plain)
    quantize = quantizer.Quantizer(str(plain))
    quantize.load_quantization_recipe(recipe.static_wi8_ai8())
    ranges = quantize.calibrate({key: [{name: image[None]} for image in material.calibration]})
    quantize.quantize(ranges).export_model(str(folder / _FILE))


def _signature(model: Path) -> tuple[str, str]:
    """Returns the names of the only input and of the signature."""
    from ai_edge_litert.interpreter import Interpreter

    ((key, ends),) = Interpreter(str(model)).get_signature_list().items()
    return ends["inputs"][0], key


def load(setting: str, folder: Path) -> Any:
    """Returns a function of uint8 pixels (1, H, W, C) to float32 logits (1, N)."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(folder / _FILE), num_threads=1)
    interpreter.allocate_tensors()
    (source,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero = result["quantization"]

    def infer(pixels: Any) -> Any:
        interpreter.set_tensor(source["index"], pixels)
        interpreter.invoke()
        logits = interpreter.get_tensor(result["index"])
        return (logits.astype(np.float32) - zero) * scale if scale else logits

    return infer
